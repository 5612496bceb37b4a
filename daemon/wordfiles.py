"""Questions about single files that the user names: what they hold, conversions, what a picture says of itself.

Used by the service. Foreign bytes are read by the inspector only; files are written here, in a thread, since what reads
foreign bytes can write none. The invariant: nothing that is there is replaced unless that was asked for.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from daemon import hypernetworks
from daemon.inspector.frames import Message
from daemon.inspector.inspector import Inspector, lost
from daemon.inspector.intake import Content, take_in
from daemon.protocol.hypernetworks import HypernetworkReport, OptimizerReport
from daemon.protocol.words import (
    FORMAT_SUFFIXES,
    ConvertReply,
    ConvertRequest,
    EncoderReport,
    FileReport,
    InspectReply,
    InspectRequest,
    WordFormat,
    WordReport,
)
from daemon.runs import describe_error
from daemon.tables import Target
from daemon.words import beware, misfit
from engine.errors import VocableError
from engine.files import write_atomically, write_error
from engine.names import sanitize_name
from engine.text import escape

_AT_ONCE = 2
"""Files that are held in memory at a time; hypernetworks have up to half a gigabyte."""


async def inspect_files(inspector: Inspector, request: InspectRequest, target: Target) -> InspectReply:
    """Say what files hold and whether a model takes it; a file that cannot be read is told with the reason."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def inspect(path: str) -> FileReport:
        async with slots:
            return await _inspect(inspector, Path(path), target)

    files = await asyncio.gather(*(inspect(check_absolute("paths", path)) for path in request.paths))
    return InspectReply(model=escape(target.name, 200), files=files)


async def convert_file(inspector: Inspector, request: ConvertRequest) -> ConvertReply:
    """Write the word or hypernetwork of a file in another format, called like the file that is written.

    Raises:
        VocableError: `file.*` of reading; `file.exists`, `disk.*` of writing; `embedding.*` or `hypernetwork.*` of what
            the file holds.
    """
    source, output = Path(check_absolute("path", request.path)), Path(check_absolute("output", request.output))
    second = Path(check_absolute("second", request.second)) if request.second else None
    name = sanitize_name(output.stem)
    if not name:
        title = f"The file name '{escape(output.name, 100)}' holds nothing that could name a word."
        raise VocableError("embedding.name", title, "Choose another name for the file to write.")
    await asyncio.to_thread(_check_free, output, request.overwrite)
    halves = [await _take_in(source)] + ([await _take_in(second)] if second else [])
    question = {
        "do": "convert",
        "stem": source.stem,
        "word": request.word,
        "format": request.format,
        "name": name,
        "has_second": second is not None,
    }
    picture = await asyncio.to_thread(_find_picture, request, source)
    notes = []
    try:
        answer, files = await _convert(inspector, question, halves, picture)
    except VocableError as error:
        if request.picture or picture is None or not error.code.startswith(("picture.", "dataset.", "file.")):
            raise
        notes.append(f"{picture.name} beside the file is not used: {error.title}")
        answer, files = await _convert(inspector, question, halves, None)
    try:
        paths = [_path_for(output, suffix, number) for number, suffix in enumerate(answer["suffixes"])]
        writing = list(zip(paths, files, strict=True))
        reply = ConvertReply(
            paths=[str(path) for path in paths],
            name=name,
            kind=answer["kind"],
            vectors=answer["vectors"],
            width=answer["width"],
            notes=[escape(note, 500) for note in [*notes, *answer["notes"]]] + _suffix_notes(output, request.format),
        )
    except (KeyError, TypeError, ValueError):
        raise lost("answered what makes no sense") from None
    await asyncio.to_thread(_write, writing, request.overwrite)
    return reply


async def _convert(
    inspector: Inspector, question: Message, halves: Sequence[Content], picture: Path | None
) -> tuple[Message, list[bytes]]:
    parts = [half.data for half in halves] + ([(await _take_in(picture)).data] if picture else [])
    return await inspector.ask({**question, "picture": picture.name if picture else ""}, parts)


async def read_picture_text(inspector: Inspector, path: Path) -> str:
    """The `parameters` text of a picture. Raises VocableError `picture.silent` when there is none."""
    content = await _take_in(path)
    answer, _ = await inspector.ask({"do": "parameters"}, [content.data])
    text = answer["text"]
    if not isinstance(text, str):
        title = f"The picture {escape(str(path), 500)} does not say how it was made."
        raise VocableError("picture.silent", title, "Use a PNG, JPEG or WebP picture as its program saved it.")
    return text


def check_absolute(field: str, path: str) -> str:
    """The path, if it is one that the service can open. Raises VocableError `request.invalid`."""
    if not Path(path).is_absolute() or "\0" in path:
        title = f"{field}: '{escape(path, 200)}' is not an absolute path."
        raise VocableError("request.invalid", title, "Give the whole path.")
    return path


async def _inspect(inspector: Inspector, path: Path, target: Target) -> FileReport:
    report = FileReport(path=escape(str(path), 5000))
    try:
        content = await _take_in(path)
        report = report.model_copy(update={"size": len(content.data), "hash": content.sha256[:12]})
        answer, _ = await inspector.ask({"do": "describe", "stem": path.stem}, [content.data])
        words = [_report(word, target) for word in answer["words"]]
        network = _report_hypernetwork(answer["hypernetwork"], target) if answer["hypernetwork"] else None
        optimizer = _report_optimizer(answer["optimizer"]) if answer["optimizer"] else None
        found = {"flavour": escape(answer["flavour"], 100), "words": words}
        return report.model_copy(update={**found, "hypernetwork": network, "optimizer": optimizer})
    except VocableError as error:
        return report.model_copy(update={"error": describe_error(error)})
    except (KeyError, TypeError, ValueError):
        return report.model_copy(update={"error": describe_error(lost("answered what makes no sense"))})


def _report(word: dict[str, Any], target: Target) -> WordReport:
    encoders = [EncoderReport.model_validate(encoder) for encoder in word["encoders"]]
    split = encoders[0].width if len(encoders) > 1 else 0
    values = word | {key: escape(word[key], 300) for key in ("name", "trigger", "model", "model_hash")}
    reason = misfit(word["width"], split, target)
    warning = "" if reason else beware(word["name"], word["model"], word["model_hash"], target)
    return WordReport.model_validate(
        values | {"encoders": encoders, "fits": not reason, "reason": reason, "warning": warning}
    )


def _report_hypernetwork(facts: dict[str, Any], target: Target) -> HypernetworkReport:
    texts = {key: escape(facts[key], 300) for key in ("name", "model", "model_hash", "weight_init", "info")}
    values = {key: value for key, value in facts.items() if key in HypernetworkReport.model_fields} | texts
    reason = hypernetworks.misfit(facts["widths"], target)
    warning = "" if reason else hypernetworks.beware(facts["widths"], facts["model"], facts["model_hash"], target)
    return HypernetworkReport.model_validate(values | {"fits": not reason, "reason": reason, "warning": warning})


def _report_optimizer(facts: dict[str, Any]) -> OptimizerReport:
    values = {key: value for key, value in facts.items() if key in OptimizerReport.model_fields}
    return OptimizerReport.model_validate(values | {key: escape(facts[key], 100) for key in ("optimizer", "hash")})


async def _take_in(path: Path, max_bytes: int = hypernetworks.MAX_BYTES) -> Content:
    return await asyncio.to_thread(take_in, path, follow=True, max_bytes=max_bytes)


def _find_picture(request: ConvertRequest, source: Path) -> Path | None:
    """The picture to write a word into: the one asked for, else one beside the file."""
    if request.format != "png":
        return None
    if request.picture:
        return Path(check_absolute("picture", request.picture))
    beside = [source.with_name(f"{source.stem}.preview.png"), source.with_name(f"{source.stem}.png")]
    return next((path for path in beside if os.path.isfile(path)), None)  # False also for a name that is too long


def _path_for(output: Path, suffix: str, number: int) -> Path:
    """The first file has the name that was asked for; of a second one, `_2` stands before the ending."""
    return output if number == 0 else output.with_name(output.stem + suffix)


def _check_free(path: Path, overwrite: bool) -> None:
    """Refuse early; whoever makes the file later is noticed when ours is put in place."""
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(path, error) from None
    if path.is_dir():
        title = f"{escape(str(path), 500)} is a folder."
        raise VocableError("file.exists", title, "Give the whole path of the file to write.")
    if not overwrite:
        hint = "Choose another name, or ask for it to be replaced."
        raise VocableError("file.exists", f"There is a file {escape(str(path), 500)} already.", hint)


def _write(files: Sequence[tuple[Path, bytes]], overwrite: bool) -> None:
    """Write all files, or leave everything as it was: half of a word is none."""
    for path, _ in files:
        _check_free(path, overwrite)
    kept: dict[Path, Path] = {}
    written: list[Path] = []
    try:
        if len(files) > 1:
            kept = {path: _keep(path) for path, _ in files if os.path.lexists(path)}
        for path, data in files:
            write_atomically(path, data, verify=_comparing(path, data), overwrite=overwrite)
            written.append(path)
    except BaseException:
        for path in written:
            _take_back(path, kept.get(path))
        raise
    finally:
        for second_name in kept.values():
            second_name.unlink(missing_ok=True)


def _keep(path: Path) -> Path:
    """Give a file that is about to be replaced a second name. Raises VocableError `disk.*`."""
    second_name = path.with_name(f".{path.name[:180]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            os.link(path, second_name, follow_symlinks=False)
        except OSError:  # not every file system has links
            shutil.copy2(path, second_name, follow_symlinks=False)
    except OSError as error:
        second_name.unlink(missing_ok=True)
        raise write_error(path, error) from error
    return second_name


def _take_back(path: Path, before: Path | None) -> None:
    if before:
        os.replace(before, path)
    else:
        path.unlink(missing_ok=True)


def _comparing(path: Path, data: bytes) -> Callable[[bytes], None]:
    def verify(written: bytes) -> None:
        if written != data:
            title = f"{path} did not read back as it was written."
            raise VocableError("disk.verify", title, "Check the disk; the file was not put in place.")

    return verify


def _suffix_notes(output: Path, format: WordFormat) -> list[str]:
    suffix = FORMAT_SUFFIXES[format]
    if output.suffix.lower() == suffix:
        return []
    return [f"Other programs expect files of this format to end in {suffix}."]
