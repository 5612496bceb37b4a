"""The command line as a whole: global options, the table of commands, and the border where errors become sentences.

Called by `tui.__main__`. No exception passes this border: errors are told in one sentence with what to do, and every
way out has an exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from engine.errors import VocableError
from tui.cli import (
    demo,
    dial,
    doctor,
    files,
    generate,
    hypernet,
    preprocess,
    queue,
    runs,
    service,
    tokens,
    train,
    words,
)
from tui.cli.output import DONE, FAILED, INTERRUPTED, report_error
from tui.cli.session import Session

app = typer.Typer(
    name="vocable",
    help="Teach a Stable Diffusion model a new word from a handful of pictures. Without a command: the live screen.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_START, _RUNS, _PICTURES, _SERVICE = "Start here", "Runs", "Words and pictures", "Service"

_HERE_ONLY = frozenset({"demo", "dial-stdio"})
"""Commands that write to this machine's disk themselves, and so cannot act on another."""

_RUN_THERE = frozenset({"daemon", "doctor"})
"""Commands about a machine or its service: they are run on the other machine as a whole, and need no line to it."""

app.command("demo", rich_help_panel=_START)(demo.demo)
app.command("train", rich_help_panel=_START)(train.train)
app.command("runs", rich_help_panel=_RUNS)(runs.list_runs)
app.command("show", rich_help_panel=_RUNS)(runs.show_run)
app.command("follow", rich_help_panel=_RUNS)(runs.follow)
app.command("pause", rich_help_panel=_RUNS)(runs.pause)
app.command("resume", rich_help_panel=_RUNS)(runs.resume)
app.command("stop", rich_help_panel=_RUNS)(runs.stop)
app.command("delete", rich_help_panel=_RUNS)(runs.delete)
app.command("restore", rich_help_panel=_RUNS)(runs.restore)
app.command("move", rich_help_panel=_RUNS)(queue.move)
app.add_typer(queue.app, name="queue", rich_help_panel=_RUNS)
app.command("generate", rich_help_panel=_PICTURES)(generate.generate)
app.command("preprocess", rich_help_panel=_PICTURES)(preprocess.preprocess)
app.add_typer(words.app, name="words", rich_help_panel=_PICTURES)
app.command("inspect", rich_help_panel=_PICTURES)(files.inspect)
app.command("convert", rich_help_panel=_PICTURES)(files.convert)
app.command("tokens", rich_help_panel=_PICTURES)(tokens.count_tokens)
app.command("new", rich_help_panel=_PICTURES)(words.new_word)
app.add_typer(hypernet.app, name="hypernet", rich_help_panel=_PICTURES)
app.command("dial-stdio", rich_help_panel=_SERVICE)(dial.dial_stdio)
app.command("doctor", rich_help_panel=_SERVICE)(doctor.doctor)
app.add_typer(service.app, name="daemon", rich_help_panel=_SERVICE)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"vocable {version('vocable')}")
        raise typer.Exit(DONE)


@app.callback()
def global_options(
    ctx: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            "-w",
            metavar="DIR",
            help="Folder with everything in it; else $VOCABLE_WORKSPACE, else the current folder if it is one, else "
            "the user's data folder.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="[USER@]HOST",
            help="Speak to the service of another machine over ssh. Workspace and paths are then that machine's.",
            show_default=False,
        ),
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    ctx.obj = Session(workspace, host)
    if host:
        _go_to(host, workspace, ctx.invoked_subcommand)
    if ctx.invoked_subcommand is None:
        from tui.app import run

        raise typer.Exit(run(ctx.obj.workspace))


def _go_to(host: str, workspace: Path | None, command: str | None) -> None:
    if command in _HERE_ONLY:
        line = f"ssh {host} vocable {command}"
        raise VocableError("usage.host", f"'{command}' works on its own machine only.", f"There: {line}")
    if command not in _RUN_THERE:
        dial.open_tunnel(host, workspace)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing is raised."""
    as_json = "--json" in arguments
    try:
        code = app(args=list(arguments), prog_name="vocable", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        return _drop_stdout()
    except Exception as error:
        return _report(error, as_json=as_json)


def _report(error: Exception, *, as_json: bool) -> int:
    if isinstance(error, VocableError):
        return report_error(error, as_json=as_json)
    if isinstance(error, TyperException):
        return report_error(_usage_error(error), as_json=as_json)
    if os.environ.get("VOCABLE_DEBUG"):
        traceback.print_exception(error)
    return report_error(_unexpected(error), as_json=as_json)


def _usage_error(error: TyperException) -> VocableError:
    """What typer says about wrong arguments, in our form."""
    message = error.format_message().strip() or "A command is missing"  # typer printed the help instead of a sentence
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "vocable"
    sentence = message if message.endswith((".", "?", ")")) else f"{message}."
    return VocableError("usage.arguments", sentence, f"See: {path} --help")


def _unexpected(error: Exception) -> VocableError:
    what = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
    return VocableError(
        "program.fault",
        f"This is a fault of the program itself ({what}).",
        "VOCABLE_DEBUG=1 shows where; vocable daemon logs shows the service's side.",
    )


def _drop_stdout() -> int:
    """The reader of our output is gone (`vocable runs | head -1`): end without a word, as other tools do."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
