"""Who may use the socket: its owner, root, and the members of the group that the settings name."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.client import Client, socket_for
from daemon.lock import bind_socket
from daemon.paths import Workspace, shared_socket_path
from daemon.peers import UNKNOWN, find_group, is_member, peer_uid
from daemon.settings import ServiceSettings, Settings
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, serving
from tests.daemon.test_process import end, vocabled

GROUP = "nogroup"
"""First group of the user `nobody` on Debian and its kin."""
SHARED = Settings(service=ServiceSettings(group=GROUP))

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")


def _has_nobody() -> bool:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("nobody").pw_gid == grp.getgrnam(GROUP).gr_gid
    return False


with_nobody = pytest.mark.skipif(not _has_nobody(), reason=f"this system has no user nobody in {GROUP}")


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


async def ask_as(path: Path, uid: int, gid: int) -> bytes:
    """What a whole request of that user is answered, to the end of the connection."""
    stranger = socket.socket(socket.AF_UNIX)
    try:
        with acting_as(uid, gid):
            stranger.connect(str(path))
    except OSError:
        stranger.close()
        raise
    reader, writer = await asyncio.open_unix_connection(sock=stranger)
    writer.write(b"GET /v1/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer


def open_way(path: Path) -> None:
    """Let everybody reach the folder `path`, so that only the service itself refuses anybody."""
    for folder in (path, *path.parents):
        if folder.stat().st_mode & 0o011 != 0o011:
            folder.chmod(0o755)


@as_root
@with_nobody
async def test_a_member_of_the_group_may_use_the_service_and_others_are_refused_before_any_handler(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gid = grp.getgrnam(GROUP).gr_gid
    path = workspace.shared_socket
    async with serving(workspace, settings=SHARED, path=path) as running:
        open_way(workspace.root)
        assert socket_for(workspace) == path
        assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (gid, 0o660)
        assert (path.parent.stat().st_gid, stat.S_IMODE(path.parent.stat().st_mode)) == (gid, 0o750)
        assert (await ask_as(path, pwd.getpwnam("nobody").pw_uid, gid)).startswith(b"HTTP/1.1 200")
        with pytest.raises(PermissionError):
            await ask_as(path, 1, 1)

        path.parent.chmod(0o755)
        path.chmod(0o666)
        monkeypatch.setattr("daemon.service.Service.info", lambda self: 1 / 0)
        for uid, its_gid in ((1, 1), (1, gid), (123_456, gid)):
            answer = await ask_as(path, uid, its_gid)
            assert answer.startswith(b"HTTP/1.1 403"), (uid, its_gid)
            assert b"request.peer" in answer
        monkeypatch.undo()
        assert (await running.client.info()).pid == os.getpid()


@as_root
@with_nobody
@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_shared_socket_has_its_modes_under_every_umask(tmp_path: Path, mask: int) -> None:
    gid = grp.getgrnam(GROUP).gr_gid
    old = os.umask(mask)
    try:
        listener = bind_socket(tmp_path / "socket" / "s", gid)
    finally:
        os.umask(old)
    with listener:
        for path, mode in ((tmp_path / "socket", 0o750), (tmp_path / "socket" / "s", 0o660)):
            assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (mode, gid)


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="a group with further members needs a mount namespace")
def test_further_members_count_and_a_group_of_the_process_does_not(tmp_path: Path) -> None:
    """In a mount namespace of its own, where /etc/group is the test's."""
    (tmp_path / "group").write_text("root:x:0:\nartists:x:4242:nobody\nothers:x:4243:\n")
    code = (
        "import os; from daemon.peers import is_member; os.setgroups([4243]);"
        "print(is_member(65534, 4242), is_member(65534, 4243), is_member(0, 4242), is_member(424242, 4242))"
    )
    script = 'mount --bind "$1/group" /etc/group || exit 77; exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, code],
        capture_output=True,
        text=True,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.stdout == "True False False False\n", done.stderr


async def test_a_group_that_does_not_exist_ends_the_service_with_78(workspace: Workspace) -> None:
    workspace.settings.write_text('[service]\ngroup = "no-such-group"\n')
    code, text = await end(await vocabled(workspace))
    assert (code, text.count("\n")) == (78, 1)
    assert "There is no group 'no-such-group' on this machine." in text
    assert not workspace.shared_socket.exists()


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="taking root's capability away needs setpriv")
def test_a_group_that_the_socket_cannot_be_given_to_ends_the_service_with_78(workspace: Workspace) -> None:
    workspace.settings.write_text('[service]\ngroup = "daemon"\n')
    without_chown = ("setpriv", "--bounding-set=-chown", "--inh-caps=-chown")
    done = subprocess.run(
        [*without_chown, sys.executable, "-m", "daemon", "--workspace", str(workspace.root)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert "cannot be given to the group that service.group names (Operation not permitted)" in done.stderr
    assert not workspace.shared_socket.exists()


async def test_a_service_that_went_back_to_its_own_user_leaves_no_dead_socket_in_its_clients_way(
    workspace: Workspace,
) -> None:
    workspace.shared_socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(workspace.shared_socket))
    async with serving(workspace):
        assert not workspace.shared_socket.exists()
        async with Client(socket_for(workspace)) as client:
            await client.info()


def test_a_path_too_long_to_share_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(VocableError, match="107 are possible") as caught:
        shared_socket_path(Workspace(tmp_path / ("x" * 100)))
    assert caught.value.code == "socket.too_long"


def test_a_shared_folder_of_somebody_else_or_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(VocableError) as caught:
        bind_socket(tmp_path / "link" / "s", os.getgid())
    assert caught.value.code == "socket.unsafe"
    assert (tmp_path / "real").stat().st_mode & 0o777 != 0o750


def test_a_peer_that_nobody_can_name_is_unknown_and_no_member() -> None:
    with socket.socket(socket.AF_INET) as stranger:
        assert peer_uid(stranger) == UNKNOWN
    assert not is_member(UNKNOWN, os.getgid())


def test_a_group_is_found_by_its_name_only() -> None:
    known = grp.getgrgid(os.getgid())
    assert find_group(known.gr_name) == known.gr_gid
    for name in ("no-such-group", str(known.gr_gid), "a\0b"):
        with pytest.raises(VocableError, match="There is no group"):
            find_group(name)
