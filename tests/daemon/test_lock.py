"""One service a workspace: the lock, and the socket file."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from daemon.lock import bind_socket, take_lock
from daemon.paths import Workspace
from engine.errors import VocableError
from tests.daemon.conftest import serving


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_second_lock_is_refused_and_says_who_has_the_first(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / "lock")
    lock.describe(pid=1234, boot_id="boot", socket=tmp_path / "s")
    with pytest.raises(VocableError, match=r"A service \(pid 1234\) runs on this workspace already") as caught:
        take_lock(tmp_path / "lock")
    assert caught.value.code == "daemon.running"
    lock.release()
    take_lock(tmp_path / "lock").release()


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_the_socket_has_its_mode_under_every_umask(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        listener = bind_socket(tmp_path / "private" / "s") if mask != 0o777 else _bind_in_made_folder(tmp_path, mask)
    finally:
        os.umask(old)
    with listener:
        [path] = (tmp_path / "private").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def _bind_in_made_folder(tmp_path: Path, mask: int) -> socket.socket:
    os.umask(0o077)
    (tmp_path / "private").mkdir()
    os.umask(mask)
    return bind_socket(tmp_path / "private" / "s")


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    bind_socket(tmp_path / "s").close()
    with bind_socket(tmp_path / "s"):
        connect(tmp_path / "s")


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("dear")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VocableError, match="is in the way") as caught:
        bind_socket(path)
    assert caught.value.code == "socket.blocked"
    assert os.path.lexists(path)


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(VocableError, match="can be entered by others"):
        bind_socket(tmp_path / "s")


async def test_a_socket_whose_file_was_removed_is_bound_again(workspace: Workspace) -> None:
    async with serving(workspace, socket_check_s=0.01) as running:
        stream = running.client.events()
        await anext(stream)
        (workspace.state / "vocable.sock").unlink()
        (workspace.state / "vocable.sock").write_text("in the way")
        async for line in stream:
            if line.topic == "problem" and "in the way" in line.data["problem"]:
                break
        (workspace.state / "vocable.sock").unlink()
        async for line in stream:
            if line.topic == "problem" and line.data["problem"] == "":
                break
        await running.client.close()
        connect(workspace.state / "vocable.sock")
        await running.stop()
