"""The units in packaging/systemd/ name only what there is, and systemd accepts them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.__main__ import EXIT_CODES
from daemon.paths import SETTINGS, Workspace

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
SYSTEM, USER, SOCKET = UNITS / "vocable.service", UNITS / "user" / "vocable.service", UNITS / "vocable.socket"

with_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read_unit(path: Path) -> dict[str, list[str]]:
    """Each key with its values; which section it stands in is systemd-analyze's business."""
    values: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            key, separator, value = line.partition("=")
            assert separator, line
            values.setdefault(key, []).append(value)
    return values


@pytest.mark.parametrize("path", [SYSTEM, USER], ids=["system", "user"])
def test_the_program_knows_every_option_and_exit_code_that_a_unit_names(path: Path) -> None:
    unit = read_unit(path)
    program, *arguments = shlex.split(unit["ExecStart"][0])
    assert Path(program).name == "vocabled"
    known = subprocess.run([sys.executable, "-m", "daemon", "--help"], capture_output=True, text=True).stdout
    for option in (argument for argument in arguments if argument.startswith("-")):
        assert re.search(rf"^ +{option}\b", known, re.MULTILINE), option
    assert {int(code) for code in unit["RestartPreventExitStatus"]} <= set(EXIT_CODES.values())
    assert unit["Type"] == ["notify"]
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(unit["WatchdogSec"][0]) >= 10


@pytest.mark.parametrize("path", [SYSTEM, USER], ids=["system", "user"])
def test_no_unit_sets_what_takes_the_gpu_away(path: Path) -> None:
    unit = read_unit(path)
    for key in ("PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset", "NoExecPaths", "PrivateUsers"):
        assert key not in unit


def test_the_socket_unit_listens_where_clients_of_the_service_look() -> None:
    arguments = shlex.split(read_unit(SYSTEM)["ExecStart"][0])
    workspace = Workspace(Path(arguments[arguments.index("--workspace") + 1]))
    socket = read_unit(SOCKET)
    assert socket["ListenStream"] == [str(workspace.shared_socket)]
    assert socket["SocketGroup"] == read_unit(SYSTEM)["Group"]
    assert f"{workspace.root}/{SETTINGS}" in (UNITS / "README.md").read_text()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as on a machine that has the program and the user."""
    program = Path(sys.executable).with_name("vocabled")
    for path in (SYSTEM, SOCKET):
        text = path.read_text().replace("/opt/vocable/bin/vocabled", str(program))
        text = re.sub(r"^(User|Group|SocketUser|SocketGroup)=vocable$", r"\1=root", text, flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text)
    (tmp_path / "user").mkdir()
    text = USER.read_text().replace("%h/.local/bin/vocabled", str(program))
    (tmp_path / "user" / "vocable.service").write_text(text)
    return tmp_path


@with_analyze
@pytest.mark.parametrize("name", ["vocable.service", "vocable.socket", "user/vocable.service"])
def test_systemd_finds_no_fault_with_a_unit(installed: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(installed / name)],
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "vocable" in line and "modprobe" not in line]
    assert complaints == []


@with_analyze
def test_the_system_unit_is_well_hardened(installed: Path) -> None:
    """systemd's own measure of exposure, 0 to 10; what remains is what the GPU needs."""
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=20",
            str(installed / "vocable.service"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@with_analyze
def test_a_fault_in_a_unit_would_be_found(installed: Path) -> None:
    unit = installed / "vocable.service"
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=mixd"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert "mixd" in json.dumps(done.stderr)
