"""`inspect` and `convert`: what files of words and hypernetworks hold, and the same in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import VocableError
from engine.text import escape
from tui.cli.hypernet import show_numbers
from tui.cli.output import FAILED, print_json, print_text, say
from tui.cli.session import AsJson, ask, build_request, check_paths, session_of

if TYPE_CHECKING:
    from daemon.protocol.hypernetworks import HypernetworkReport, OptimizerReport
    from daemon.protocol.words import ConvertReply, FileReport, InspectReply, WordReport

_AT_ONCE = 256
"""Files in one request, which is as many as the service takes."""


def inspect(
    ctx: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Files of embeddings or hypernetworks, in any format.", show_default=False
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Base model to compare with; the loaded one, else the starter, when absent.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show what files of words or hypernetworks hold, and if the model takes it. Ends with 1 when one is unreadable."""
    check_paths(session_of(ctx), *files)
    paths = [_absolute(path) for path in files]
    sendable = [path for path in paths if _is_text(path)]
    replies = [_inspect(ctx, sendable[start : start + _AT_ONCE], model) for start in range(0, len(sendable), _AT_ONCE)]
    answered = (report for reply in replies for report in reply.files)
    reports = [next(answered) if _is_text(path) else _report_name(path) for path in paths]
    compared = replies[0].model if replies else ""
    if as_json:
        print_json({"model": compared, "files": [report.model_dump(mode="json") for report in reports]})
    else:
        print_text("\n\n".join(_describe(report, compared) for report in reports))
    if any(report.error for report in reports):
        raise typer.Exit(FAILED)


def convert(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to read, in any format.", show_default=False)],
    second: Annotated[
        Path | None,
        typer.Argument(metavar="[SECOND]", help="The other half of an SDXL word that is kept in two files."),
    ] = None,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="safetensors or webui-pt; a word also diffusers, onetrainer, png."),
    ] = "safetensors",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="File or folder to write; its name is the word's. In the current folder, like FILE, when absent.",
        ),
    ] = None,
    word: Annotated[str, typer.Option(metavar="NAME", help="Which word of a file that holds several.")] = "",
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURE", help="For png: the picture that carries the word; the one beside FILE, if any."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a word or hypernetwork in another format; all is read back and compared before the file takes its name."""
    from daemon.protocol.words import ConvertRequest

    check_paths(session_of(ctx), file, second, output or "", picture)
    request = build_request(
        ConvertRequest,
        path=_absolute(file),
        second=_absolute(second),
        word=word,
        format=to,
        output=str(choose_output(output, word or file.stem, to)),
        picture=_absolute(picture),
        overwrite=overwrite,
    )
    reply = ask(ctx, lambda client: client.convert(request))
    if as_json:
        print_json(reply)
    else:
        _tell(reply)


def choose_output(wanted: Path | None, stem: str, to: str) -> Path:
    """Absolute path of the file to write.

    Raises:
        VocableError: `usage.format` for an unknown format, `usage.output` for a name that ends otherwise than it does.
    """
    from daemon.protocol.words import FORMAT_SUFFIXES

    suffix = next((suffix for known, suffix in FORMAT_SUFFIXES.items() if known == to), "")
    if not suffix:
        raise VocableError("usage.format", f"'{to}' is not a format.", f"Formats: {', '.join(FORMAT_SUFFIXES)}.")
    path = Path.cwd() if wanted is None else wanted.expanduser().absolute()
    if path.is_dir():
        return path / f"{stem}{suffix}"
    if path.suffix.lower() != suffix:
        raise VocableError("usage.output", f"{path.name} is not the name of a {to} file.", f"End it in {suffix}.")
    return path


def _inspect(ctx: typer.Context, paths: list[str], model: str) -> InspectReply:
    from daemon.protocol.words import InspectRequest

    request = build_request(InspectRequest, paths=paths, model=model)
    return ask(ctx, lambda client: client.inspect(request))


def _is_text(path: str) -> bool:
    """File names may be any bytes, but requests are text."""
    return not any("\ud800" <= char <= "\udfff" for char in path)


def _report_name(path: str) -> FileReport:
    from daemon.protocol.runs import ErrorInfo
    from daemon.protocol.words import FileReport

    title = "The file's name is not text in UTF-8."
    error = ErrorInfo(code="file.name", title=title, hint="Rename the file; it is listed by: vocable words")
    return FileReport(path=escape(path, 5000), error=error)


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.expanduser().absolute())


def _describe(report: FileReport, model: str) -> str:
    lines = [report.path]
    if report.error is not None:
        return "\n".join([*lines, f"  {report.error.title} {report.error.hint}".rstrip()])
    lines.append(f"  {report.flavour}, {report.size:,} bytes, hash {report.hash}")
    for word in report.words:
        lines += [f"  {line}" for line in _describe_word(word, model)]
    if report.hypernetwork is not None:
        lines += [f"  {line}" for line in _describe_hypernetwork(report.hypernetwork, model)]
    if report.optimizer is not None:
        lines += [f"  {line}" for line in _describe_optimizer(report.optimizer)]
    return "\n".join(lines)


def _describe_word(word: WordReport, model: str) -> list[str]:
    widths = " + ".join(str(encoder.width) for encoder in word.encoders)
    lines = [
        f"word      {word.name}",
        f"vectors   {word.vectors} of {widths} ({word.family})",
        f"step      {word.step}",
        f"model     {_show_model(word.model, word.model_hash)}",
    ]
    lines += [
        f"norms     {encoder.key}: {' '.join(f'{norm:.3f}' for norm in encoder.norms)}" for encoder in word.encoders
    ]
    if word.checksum:
        lines.append(f"checksum  {word.checksum}")
    if word.trigger:
        lines.append(f"trigger   {word.trigger}")
    lines.append(f"fits      {model}: {'yes' if word.fits else f'no. {word.reason}'}")
    if word.warning:
        lines.append(f"warning   {word.warning}")
    return lines


def _describe_hypernetwork(network: HypernetworkReport, model: str) -> list[str]:
    lines = [
        f"hypernetwork  {network.name}",
        f"layers        {show_numbers(network.sizes)}, {network.activation}{', layer norm' * network.layer_norm}",
        f"widths        {show_numbers(network.widths)} ({network.family}), {network.parameters:,} numbers",
        f"step          {'unknown' if network.step is None else network.step}",
        f"model         {_show_model(network.model, network.model_hash)}",
        f"began as      {network.weight_init}",
    ]
    if any(network.dropout):
        lines.append(f"dropout       {show_numbers(network.dropout)}")
    if network.info:
        lines.append(f"info          {network.info}")
    lines.append(f"fits          {model}: {'yes' if network.fits else f'no. {network.reason}'}")
    if network.warning:
        lines.append(f"warning       {network.warning}")
    return lines


def _describe_optimizer(optimizer: OptimizerReport) -> list[str]:
    unknown = "unknown"
    return [
        f"optimizer     {optimizer.optimizer or unknown}, of the {optimizer.of} {optimizer.hash or unknown}",
        f"trained       {optimizer.tensors} tensors, {optimizer.numbers:,} numbers",
        f"step          {unknown if optimizer.step is None else optimizer.step}",
        f"rate          {unknown if optimizer.learn_rate is None else f'{optimizer.learn_rate:g}'}",
    ]


def _show_model(name: str, digest: str) -> str:
    return f"{name or 'unknown'}{f' ({digest})' if digest else ''}"


def _tell(reply: ConvertReply) -> None:
    for path in reply.paths:
        print_text(path)
    for note in reply.notes:
        say(f"note: {note}")
