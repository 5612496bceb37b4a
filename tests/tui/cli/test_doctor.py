"""`vocable doctor` with and without a service, and with recipes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from daemon.protocol.service import QueueView, ServerInfo, State, WorkerView
from tests.tui.cli.conftest import PICTURES, Vocable
from tui.cli.doctor import _judge_service, describe


def test_a_workspace_without_a_service_is_looked_at_and_none_is_started(own_vocable: Vocable) -> None:
    out, _ = own_vocable("doctor")
    words = {line.split()[1]: line.split()[0] for line in out.splitlines()}
    assert words["service"] == "note"
    assert set(words.values()) <= {"ok", "note", "warning"}
    assert own_vocable.json("daemon", "status", code=1)["running"] is False


def test_a_service_is_asked_and_shown_in_json(vocable: Vocable) -> None:
    vocable("daemon", "start")
    findings = vocable.json("doctor")["findings"]
    assert all(set(finding) == {"check", "verdict", "text", "advice"} for finding in findings)
    service = [finding for finding in findings if finding["check"] == "service"]
    assert [finding["verdict"] for finding in service] == ["ok"]
    assert any(finding["check"] == "folders" and "embeddings/" in finding["text"] for finding in findings)


def test_what_keeps_runs_from_the_device_is_told() -> None:
    info = ServerInfo(daemon=version("vocable"), boot_id="b", pid=1, workspace="/w", socket="/w/s")
    wedged = WorkerView(state="gpu_wedged", note="The worker (pid 7) cannot be killed.")
    queue = QueueView(state="paused", reason="Five workers were lost.")
    state = State(boot_id="b", seq=0, runs=[], words=[], worker=wedged, queue=queue, folders={}, problem="")
    assert [describe(finding) for finding in _judge_service(info, state)[1:]] == [
        "fault   worker      The worker (pid 7) cannot be killed. No other worker is started before that one is gone.",
        "warning queue       Five workers were lost. vocable queue resume",
    ]


def test_a_good_recipe_is_checked_and_not_queued(vocable: Vocable, tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(f'name = "doctored"\n[data]\nfolder = "{PICTURES}"\n')
    out, _ = vocable("doctor", str(path))
    assert "doctored: " in out
    assert "doctored" not in {run["name"] for run in vocable.json("runs")}


def test_every_fault_of_a_recipe_is_a_line_and_the_end_is_1(vocable: Vocable, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "bad"\nmodel = "none"\n[data]\nfolder = "/nowhere"\n')
    out, _ = vocable("doctor", str(path), code=1)
    faults = [line for line in out.splitlines() if line.startswith("fault")]
    assert [("model: " in line, "data.folder: " in line) for line in faults] == [(True, False), (False, True)]
    vocable("doctor", str(tmp_path / "absent.toml"), code=1)
