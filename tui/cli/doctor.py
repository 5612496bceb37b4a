"""`doctor`: looks at the machine, the workspace and the service, and, given a recipe, at all that a run of it needs."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import RecipeError, VocableError
from tui.cli.dial import run_there
from tui.cli.output import FAILED, print_json, print_text
from tui.cli.session import AsJson, Session, check_paths, connect, session_of

if TYPE_CHECKING:
    from daemon.checkup import Finding
    from daemon.paths import Workspace
    from daemon.protocol.service import ServerInfo, State


def doctor(
    ctx: typer.Context,
    recipe_file: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE.toml]", help="A recipe to check down to the disk as well.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check machine, workspace and service, and what a recipe needs. Ends with 1 when there is a fault.

    Changes nothing, and starts the service only to have a recipe checked. With --host it is the other machine that is
    looked at; a recipe file is then one of that machine.
    """
    from daemon.checkup import check_machine
    from daemon.checkup_settings import check_settings

    session = session_of(ctx)
    if session.host:
        check_paths(session, recipe_file)
        run_there(session, "doctor", *([str(recipe_file)] if recipe_file else []), *(["--json"] if as_json else []))
    findings = check_machine(session.workspace, os.environ) + check_settings(session.workspace)
    findings += asyncio.run(_check_service(session.workspace))
    if recipe_file is not None:
        findings += asyncio.run(_check_recipe(session, recipe_file))
    if as_json:
        print_json({"workspace": str(session.workspace.root), "findings": [asdict(finding) for finding in findings]})
    else:
        print_text("\n".join(describe(finding) for finding in findings))
    if any(finding.verdict == "fault" for finding in findings):
        raise typer.Exit(FAILED)


def describe(finding: Finding) -> str:
    """The finding on one line: how bad, what, and what to do."""
    line = f"{finding.verdict:<8}{finding.check:<12}{finding.text}"
    return f"{line}. {finding.advice}" if finding.advice else line


async def _check_service(workspace: Workspace) -> list[Finding]:
    from daemon.checkup import Finding
    from daemon.client import Client, socket_for

    try:
        async with Client(socket_for(workspace)) as client:
            return _judge_service(await client.info(), await client.state())
    except VocableError as error:
        if error.code == "link.absent":
            return [Finding("service", "note", "not running; it starts with the first command that needs it")]
        return [Finding("service", "fault", error.title.rstrip("."), error.hint)]


def _judge_service(info: ServerInfo, state: State) -> list[Finding]:
    from importlib.metadata import version

    from daemon.checkup import Finding

    findings = [Finding("service", "ok", f"version {info.daemon}, pid {info.pid}")]
    if info.daemon != version("vocable"):
        text = f"version {info.daemon} runs, this program is {version('vocable')}"
        findings = [Finding("service", "warning", text, "vocable daemon stop, then vocable daemon start.")]
    if state.problem:
        findings.append(Finding("service", "fault", state.problem.rstrip("."), "See: vocable daemon logs"))
    note = state.worker.note.rstrip(".")
    if state.worker.state == "failed":
        findings.append(Finding("worker", "warning", note or "failed", "See: vocable daemon logs --worker"))
    if state.worker.state == "gpu_wedged":
        findings.append(Finding("worker", "fault", note, "No other worker is started before that one is gone."))
    if state.queue.state == "paused":
        findings.append(Finding("queue", "warning", state.queue.reason.rstrip("."), "vocable queue resume"))
    for name, health in state.folders.items():
        mode, reason = health.get("mode", ""), health.get("reason", "")
        text = f"{name}/ is watched ({mode})" + (f": {reason}" if reason else "")
        findings.append(Finding("folders", "warning" if reason else "ok", text))
    return findings


async def _check_recipe(session: Session, path: Path) -> list[Finding]:
    from daemon.checkup import Finding
    from tui.cli.recipes import make_recipe

    try:
        recipe = make_recipe(path, {}, [], cwd=Path.cwd(), datasets=session.workspace.datasets)
        async with connect(session.workspace) as client:
            found = await client.check_recipe(recipe.model_dump(mode="json"))
    except RecipeError as error:
        return [Finding("recipe", "fault", f"{fault.path}: {fault.message}") for fault in error.faults]
    except VocableError as error:
        return [Finding("recipe", "fault", error.title.rstrip("."), error.hint)]
    text = f"{found.name}: {found.pictures} pictures in {found.folder}, {found.prompts} prompts, {found.steps} steps"
    findings = [Finding("recipe", "ok", f"{text} on {found.model}")]
    return findings + [Finding("recipe", "warning", warning.rstrip(".")) for warning in found.warnings]
