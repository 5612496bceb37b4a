"""Deleting a run, and undoing it, from the command line."""

from __future__ import annotations

import json

from tests.daemon.conftest import Running
from tests.tui.cli.test_queue import running, vocable

__all__ = ["running"]


async def test_a_deleted_run_is_told_with_the_command_that_takes_it_back(running: Running) -> None:
    await running.train("now")
    run = await running.train("fox")
    await running.client.command(run.id, "stop")
    _, said = await vocable(running, "delete", "fox")
    assert "trash/runs/" in said
    assert f"restore {run.id}" in said
    _, said = await vocable(running, "delete", "fox", code=2)
    assert "There is no run 'fox'." in said
    out, _ = await vocable(running, "restore", run.id, "--json")
    assert json.loads(out)["folder"] == run.folder
    assert [view.name for view in await running.client.runs()] == ["now", "fox"]


async def test_a_run_that_has_not_ended_is_refused_with_what_to_do(running: Running) -> None:
    run = await running.train("now")
    _, said = await vocable(running, "delete", "now", code=2)
    assert f"vocable stop {run.id}" in said
