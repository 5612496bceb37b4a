"""Every way in which files come, change and go, with the kernel's hints and without them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.inotify import InotifyEmitter

from daemon.watch import Timing
from daemon.watch.hints import Hints
from tests.daemon.watch.conftest import BLIND, QUICK, Watch


class Deaf(Hints):
    """Hints that never come although all seems well."""

    def arm(self, root: Path, *, deep: bool = True) -> None:
        pass

    def alive(self) -> bool:
        return True


@pytest.fixture(params=["inotify", "polling", "deaf"])
def how(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {
        "inotify": {},
        "polling": {"polling": True},
        "deaf": {"hints": Deaf, "timing": BLIND},
    }[request.param]


async def test_what_is_there_at_the_start_is_known_at_once(root: Path, watch: Watch) -> None:
    old = root / "old.png"
    old.write_bytes(b"x")
    watched = await watch(timing=Timing(old_s=0, settle_s=0, empty_settle_s=0))
    assert watched.names == {"old.png"}
    assert watched.watch.files[old].size == 1


async def test_files_written_moved_in_and_renamed_are_found(
    root: Path, tmp_path: Path, watch: Watch, how: dict
) -> None:
    watched = await watch(**how)
    (root / "written.png").write_bytes(b"a")
    (tmp_path / "elsewhere").write_bytes(b"b")
    os.rename(tmp_path / "elsewhere", root / "moved.png")
    (root / ".partial").write_bytes(b"c")
    os.replace(root / ".partial", root / "renamed.png")
    await watched.until_names("written.png", "moved.png", "renamed.png")
    os.rename(root / "moved.png", root / "again.png")
    (root / "written.png").unlink()
    await watched.until_names("again.png", "renamed.png")


async def test_folders_made_moved_in_and_removed_are_followed(
    root: Path, tmp_path: Path, watch: Watch, how: dict
) -> None:
    watched = await watch(**how)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "a.png").write_bytes(b"a")
    os.rename(tmp_path / "tree", root / "tree")
    (root / "new" / "deeper").mkdir(parents=True)
    (root / "new" / "deeper" / "b.png").write_bytes(b"b")
    await watched.until_names("tree/deep/a.png", "new/deeper/b.png")
    (root / "tree" / "deep" / "c.png").write_bytes(b"c")
    await watched.until_names("tree/deep/a.png", "tree/deep/c.png", "new/deeper/b.png")
    shutil.rmtree(root / "tree")
    await watched.until_names("new/deeper/b.png")


async def test_a_file_replaced_with_the_same_size_and_time_is_noticed(root: Path, watch: Watch, how: dict) -> None:
    path = root / "a.png"
    path.write_bytes(b"old")
    watched = await watch(**how)
    await watched.until_names("a.png")
    before = watched.watch.files[path]
    (root / ".next").write_bytes(b"new")
    os.utime(root / ".next", ns=(before.mtime_ns, before.mtime_ns))
    os.replace(root / ".next", path)
    await watched.until(lambda: watched.watch.files.get(path, before) != before)
    after = watched.watch.files[path]
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert after.inode != before.inode


async def test_the_folder_itself_may_go_and_come_again(root: Path, watch: Watch, how: dict) -> None:
    (root / "a.png").write_bytes(b"a")
    watched = await watch(**how)
    await watched.until_names("a.png")
    shutil.rmtree(root)
    await watched.until_names()
    assert "missing" in watched.watch.health()["reason"]
    os.mkdir(root)
    (root / "b.png").write_bytes(b"b")
    await watched.until_names("b.png")
    (root / "c.png").write_bytes(b"c")
    await watched.until_names("b.png", "c.png")
    assert watched.watch.health()["reason"] in ("", "as configured")


async def test_a_file_that_grows_is_taken_only_when_it_rests(root: Path, watch: Watch) -> None:
    watched = await watch(timing=Timing(settle_s=0.4, gather_s=0.01))
    with (root / "slow.png").open("wb") as file:
        for _ in range(15):
            file.write(b"x" * 100)
            file.flush()
            await asyncio.sleep(0.05)
    await watched.until_names("slow.png")
    assert [stamp.size for table in watched.tables for stamp in table.values()] == [1500]


async def test_a_file_being_rewritten_keeps_its_old_place_until_it_rests(root: Path, watch: Watch) -> None:
    path = root / "a.png"
    path.write_bytes(b"one")
    watched = await watch(timing=Timing(settle_s=0.3, gather_s=0.01))
    await watched.until_names("a.png")
    path.write_bytes(b"three")
    await watched.until(lambda: watched.watch.files[path].size == 5)
    assert [len(table) for table in watched.tables] == [1, 1]


async def test_a_file_deleted_before_it_rests_is_never_told(root: Path, watch: Watch) -> None:
    watched = await watch()
    path = root / "brief.png"
    path.write_bytes(b"x")
    path.unlink()
    (root / "lasting.png").write_bytes(b"x")
    await watched.until_names("lasting.png")
    assert all(path not in table for table in watched.tables)


async def test_an_empty_file_waits_longer_than_one_with_content(root: Path, watch: Watch) -> None:
    watched = await watch()
    (root / "empty.png").touch()
    (root / "full.png").write_bytes(b"x")
    await watched.until_names("empty.png", "full.png")
    assert {path.name for path in watched.tables[0]} == {"full.png"}


async def test_rescan_takes_everything_as_it_is_now(root: Path, watch: Watch) -> None:
    watched = await watch(polling=True, timing=Timing(settle_s=60, poll_s=60))
    (root / "young.png").write_bytes(b"x")
    await watched.watch.rescan()
    assert watched.names == {"young.png"}
    (root / "young.png").unlink()
    await watched.watch.rescan()
    assert watched.names == set()


async def test_a_watch_that_is_told_to_looks_at_once(root: Path, watch: Watch) -> None:
    watched = await watch(hints=Deaf)
    (root / "fox.pt").write_bytes(b"fox")
    watched.watch.look_soon()
    await watched.until_names("fox.pt")


async def test_links_pipes_and_sockets_are_told_for_what_they_are_and_not_followed(
    root: Path, tmp_path: Path, watch: Watch
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(b"x")
    (root / "loop").symlink_to(root)
    (root / "door").symlink_to(tmp_path / "outside")
    (root / "nowhere.png").symlink_to("gone")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.png"))
        watched = await watch()
        kinds = {str(path.relative_to(root)): stamp.kind for path, stamp in watched.watch.files.items()}
    assert kinds == {
        "loop": "symlink",
        "door": "symlink",
        "nowhere.png": "symlink",
        "pipe.png": "special",
        "socket.png": "special",
    }


async def test_a_name_that_is_no_unicode_is_a_name(root: Path, watch: Watch) -> None:
    watched = await watch()
    (root / os.fsdecode(b"\xff\x1b.png")).write_bytes(b"x")
    await watched.until_names(os.fsdecode(b"\xff\x1b.png"))


async def test_temporary_files_are_never_told(root: Path, watch: Watch) -> None:
    watched = await watch()
    for name in (".hidden.png", "a.tmp", "b.part", "c.crdownload", "d~", "Thumbs.db"):
        (root / name).write_bytes(b"x")
    (root / "@eaDir").mkdir()
    (root / "@eaDir" / "thumb.png").write_bytes(b"x")
    (root / "real.png").write_bytes(b"x")
    await watched.until_names("real.png")
    await watched.watch.rescan()
    assert watched.names == {"real.png"}


@pytest.mark.parametrize(("code", "key"), [(errno.ENOSPC, "max_user_watches"), (errno.EMFILE, "max_user_instances")])
async def test_used_up_watches_mean_polling_with_the_remedy_in_sight(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, code: int, key: str
) -> None:
    def refuse(self: InotifyEmitter) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(InotifyEmitter, "on_thread_start", refuse)
    watched = await watch()
    health = watched.watch.health()
    assert health["mode"] == "polling"
    assert f"sysctl fs.inotify.{key}=" in health["reason"]
    (root / "a.png").write_bytes(b"x")
    await watched.until_names("a.png")


async def test_hints_come_back_when_the_kernel_has_room_again(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: InotifyEmitter) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(InotifyEmitter, "on_thread_start", refuse)
        watched = await watch(timing=BLIND)
    await asyncio.sleep(BLIND.rescan_s)
    await watched.watch.rescan()
    assert watched.watch.health()["mode"] == "inotify"
    assert watched.watch.health()["reason"] == ""


async def test_a_dead_observer_is_started_again(root: Path, watch: Watch) -> None:
    watched = await watch(timing=BLIND)
    observer = watched.watch._hints._observer
    assert observer is not None
    observer.stop()
    observer.join()
    (root / "a.png").write_bytes(b"x")
    await watched.until_names("a.png")
    assert watched.watch.health()["restarts"] == 1
    assert watched.watch._hints.alive()


async def test_a_hint_that_fails_does_not_silence_the_next(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = await watch()
    handler = watched.watch._hints._handler
    real, calls = handler._wake, []

    def wake() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("first time")
        real()

    monkeypatch.setattr(handler, "_wake", wake)
    (root / "a.png").write_bytes(b"x")
    await watched.until_names("a.png")
    assert "a hint was lost" in caplog.text


async def test_an_unreadable_folder_does_not_lose_what_was_known_in_it(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "a.png").write_bytes(b"x")
    watched = await watch(timing=Timing(old_s=0, settle_s=0))
    real = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("sub"):
            raise OSError(errno.ESTALE, "stale")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (root / "b.png").write_bytes(b"x")
    await watched.watch.rescan()
    assert watched.names == {"sub/a.png", "b.png"}
    assert "sub cannot be read" in watched.watch.health()["reason"]


async def test_a_flood_of_files_is_known_in_the_end(root: Path, watch: Watch) -> None:
    watched = await watch()
    expected = {f"{number}.png" for number in range(3000)}

    def flood() -> None:
        for name in expected:
            (root / name).write_bytes(b"x")

    await asyncio.to_thread(flood)
    await watched.until(lambda: watched.names == expected)


async def test_when_the_kernel_lost_hints_the_folder_is_looked_through_at_once(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = await watch()
    monkeypatch.setattr(watched.watch._hints._handler, "_wake", lambda: None)
    (root / "a.png").write_bytes(b"x")
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    await watched.until_names("a.png")
    assert watched.watch.health()["overflows"] == 1


async def test_our_own_looks_are_no_hints(root: Path, watch: Watch) -> None:
    (root / "sub").mkdir()
    watched = await watch(timing=QUICK)
    (root / "a.png").write_bytes(b"x")
    await watched.until_names("a.png")
    event = watched.watch.health()["last_event"]
    for _ in range(3):
        await watched.watch.rescan()
        (root / "a.png").read_bytes()
    await asyncio.sleep(0.2)
    assert watched.watch.health()["last_event"] == event


async def test_only_so_many_levels_are_looked_into_and_entries_are_counted_in_the_first(
    root: Path, watch: Watch
) -> None:
    (root / "a" / "b").mkdir(parents=True)
    for name in ("top.txt", "a/one.txt", "a/two.txt", "a/b/deep.txt"):
        (root / name).write_text("x")
    for depth, files in ((1, 1), (2, 3), (None, 4)):
        watched = await watch(depth=depth)
        await watched.watch.rescan()
        assert (len(watched.watch.files), watched.watch.health()["entries"]) == (files, 1 if depth == 1 else 2)


@pytest.mark.parametrize("polling", [False, True])
async def test_changes_below_what_is_looked_into_do_not_matter(root: Path, watch: Watch, polling: bool) -> None:
    (root / "done").mkdir()
    watched = await watch(depth=1, polling=polling)
    (root / "done" / "old.txt").write_text("x")
    (root / "new.txt").write_text("x")
    await watched.until_names("new.txt")


async def test_a_look_is_told_of_although_it_found_nothing_new(root: Path, watch: Watch) -> None:
    looks: list[None] = []
    watched = await watch(on_look=lambda: looks.append(None))
    before = len(looks)
    await watched.watch.rescan()
    assert len(looks) > before > 0
    assert watched.tables == []


async def test_a_watch_that_gathers_changes_ends_at_once(root: Path, watch: Watch) -> None:
    before = asyncio.all_tasks()
    watched = await watch(timing=Timing(gather_s=600))
    (following,) = asyncio.all_tasks() - before
    watched.watch.look_soon()
    for _ in range(20):
        await asyncio.sleep(0)  # until it gathers
    await watched.watch.stop()
    assert following.done()
    assert not following.cancelled()
