"""Each check against a machine that has the trouble it looks for."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from daemon import checkup, gpu
from daemon.checkup import (
    check_file_system,
    check_folders,
    check_gpu,
    check_inotify,
    check_linger,
    check_machine,
    check_room,
    check_socket,
    check_sqlite,
)
from daemon.gpu import run_bounded
from daemon.paths import Workspace
from daemon.watch.hints import Hints
from daemon.worker.footprint import leave_footprint


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    findings = check_machine(Workspace(tmp_path / "new"), {})
    assert list(tmp_path.iterdir()) == []
    assert findings[0].verdict == "note"
    assert "is made with the first command" in findings[0].text


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        *(("3.6.23", "ok"), ("3.7.0", "note"), ("3.40.1", "note"), ("3.44.5", "note"), ("3.44.6", "ok")),
        *(("3.45.0", "note"), ("3.50.6", "note"), ("3.50.7", "ok"), ("3.51.2", "note"), ("3.51.3", "ok")),
        *(("3.52.0", "note"), ("3.53.0", "ok"), ("4.0.0", "ok")),
    ],
)
def test_versions_of_sqlite_with_the_wal_fault_are_named(version: str, verdict: str) -> None:
    assert check_sqlite(version).verdict == verdict


def test_a_folder_that_is_no_folder_is_a_fault(workspace: Workspace) -> None:
    workspace.trash.rmdir()
    workspace.trash.touch()
    workspace.state.chmod(0o755)
    verdicts = {finding.verdict: finding.text for finding in check_folders(workspace)}
    assert str(workspace.trash) in verdicts["fault"]
    assert "entered by others" in verdicts["warning"]


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_room(tmp_path / "not" / "there").text.endswith("free")
    monkeypatch.setattr(checkup, "SOME_ROOM", 1 << 60)
    assert check_room(tmp_path).verdict == "warning"
    monkeypatch.setattr(checkup, "LITTLE_ROOM", 1 << 60)
    assert check_room(tmp_path).verdict == "fault"


def test_a_full_table_of_inodes_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "FEW_FILES", 1 << 62)
    if os.statvfs(tmp_path).f_files:
        assert "more files are possible" in check_room(tmp_path).text


def test_a_workspace_on_another_machine_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_file_system(tmp_path).verdict == "ok"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 / {tmp_path} rw - nfs4 box:/home rw\n")
    monkeypatch.setattr("daemon.watch.mounts._MOUNTINFO", mounts)
    assert "nfs4" in check_file_system(tmp_path / "workspace").text


def test_a_path_too_long_for_a_socket_is_explained(tmp_path: Path) -> None:
    finding = check_socket(Workspace(tmp_path / ("x" * 100)), {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert (finding.verdict, "of 107 bytes" in finding.text) == ("note", True)


def test_a_short_folder_that_others_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "vocable").mkdir()
    (tmp_path / "vocable").chmod(0o755)
    finding = check_socket(Workspace(tmp_path / ("x" * 100)), {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert finding.verdict == "fault"


def test_watches_of_this_user_are_counted(workspace: Workspace) -> None:
    hints = Hints(lambda: None)
    before = checkup._count_inotify(Path("/proc"))
    hints.arm(workspace.datasets)
    after = checkup._count_inotify(Path("/proc"))
    hints.disarm()
    assert after["instances"] >= before["instances"] + 1
    assert after["watches"] >= before["watches"] + 2


def test_exhausted_watches_come_with_the_line_that_helps(workspace: Workspace, tmp_path: Path) -> None:
    limits = tmp_path / "proc" / "sys" / "fs" / "inotify"
    limits.mkdir(parents=True)
    (limits / "max_user_instances").write_text("128\n")
    (limits / "max_user_watches").write_text("3\n")
    finding = check_inotify(workspace, tmp_path / "proc")
    assert finding.verdict == "warning"
    assert "sysctl fs.inotify.max_user_watches=12" in finding.advice


def test_lingering_matters_where_systemd_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not run here" in check_linger({}, tmp_path).text
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert check_linger(environ, tmp_path).verdict == "note"
    (tmp_path / "systemd/user").mkdir(parents=True)
    (tmp_path / "systemd/user/vocable.service").touch()
    assert check_linger(environ, tmp_path).verdict == "warning"
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/nobody").touch()
    assert check_linger(environ, tmp_path).verdict == "ok"


STUBBORN = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(600)"
CARDS = "GPU-1, NVIDIA H100 80GB HBM3, 570.1, 81559, 40000\nGPU-2, NVIDIA H100 80GB HBM3, 570.1, 81559, [N/A]\n"


def fake_driver(folder: Path, *, cards: str = CARDS, holders: str = "", code: int = 0) -> list[str]:
    """An nvidia-smi that answers so."""
    (folder / "cards").write_text(cards)
    (folder / "holders").write_text(holders)
    script = folder / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        f'  --query-gpu=*) cat "{folder}/cards";;\n'
        f'  --query-compute-apps=*) cat "{folder}/holders";;\nesac\nexit {code}\n'
    )
    script.chmod(0o755)
    return [str(script)]


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_torch_version", lambda: "2.13.0+cu130")


def test_a_driver_that_never_answers_holds_nothing_up(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_bounded([sys.executable, "-c", STUBBORN], 0.2) is None
    monkeypatch.setattr(gpu, "TIMEOUT_S", 0.2)
    [finding] = check_gpu(workspace, [sys.executable, "-c", STUBBORN])
    assert (finding.verdict, "does not answer" in finding.text) == ("fault", True)


def test_cards_are_listed_with_the_memory_that_is_free(workspace: Workspace, tmp_path: Path, with_cuda: None) -> None:
    first, second = check_gpu(workspace, fake_driver(tmp_path))
    assert (first.verdict, first.text) == ("ok", "NVIDIA H100 80GB HBM3, driver 570.1, 39.1 GiB of 79.6 GiB free")
    assert second.text == "NVIDIA H100 80GB HBM3, driver 570.1, ? of 79.6 GiB free"


def test_a_torch_without_cuda_is_warned_of(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "_torch_version", lambda: "2.13.0+cpu")
    assert "2.13.0+cpu cannot use it" in check_gpu(workspace, fake_driver(tmp_path))[-1].text


def test_others_on_a_card_are_named_with_what_they_hold(workspace: Workspace, tmp_path: Path, with_cuda: None) -> None:
    leave_footprint(workspace.state / "worker.json", os.getppid())
    user = pwd.getpwuid(os.getuid()).pw_name
    holders = (
        f"GPU-2, {os.getpid()}, /opt/a, b/python3, 12288\nGPU-2, 999999999, [Not Found], [N/A]\n"
        f"GPU-1, {os.getppid()}, python, 2048\nGPU-1, nonsense\n"
    )
    found = check_gpu(workspace, fake_driver(tmp_path, holders=holders))
    assert [(finding.verdict, finding.text) for finding in found[1:]] == [
        ("ok", f"the worker of this workspace (pid {os.getppid()}) holds 2.0 GiB"),
        ("ok", "NVIDIA H100 80GB HBM3, driver 570.1, ? of 79.6 GiB free"),
        ("warning", f"python3 of {user} (pid {os.getpid()}) holds 12.0 GiB"),
        (
            "warning",
            "a process that cannot be seen from here (pid 999999999) holds memory that the driver does not tell",
        ),
    ]
    assert "memory.full" in found[-1].advice


def test_a_name_of_a_process_steers_no_terminal(workspace: Workspace, tmp_path: Path, with_cuda: None) -> None:
    driver = fake_driver(tmp_path, holders="GPU-1, 999999999, bad\x1b]0;x\x07, 5\n")
    assert r"bad\x1b]0;x\x07 (pid" in check_gpu(workspace, driver)[1].text


def test_a_driver_that_fails_is_quoted_safely(workspace: Workspace, tmp_path: Path) -> None:
    [finding] = check_gpu(workspace, fake_driver(tmp_path, cards="driver \x1b[2J mismatch\n", code=9))
    assert (finding.verdict, finding.text) == ("warning", r"nvidia-smi fails: driver \x1b[2J mismatch")


def test_no_card_is_a_note(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [finding.verdict for finding in check_gpu(workspace, devices=tmp_path)] == ["note"]
    (tmp_path / "nvidia0").touch()
    assert "no nvidia-smi" in check_gpu(workspace, devices=tmp_path)[0].text
