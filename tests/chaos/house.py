"""A workspace and the real service in it, which is started, killed, looked at and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from daemon.client import Client
from daemon.paths import Workspace

START_S = 60.0
"""Far beyond what a start takes on a busy machine."""
STOP_S = 20.0
"""A service that is asked to end has so long, on a busy machine too."""
GONE_S = 5.0
"""Whoever belonged to a killed service is gone after so long."""


@dataclass(frozen=True)
class Row:
    """What the history says of a run."""

    state: str
    ended_at: float | None
    folder: str


class House:
    """One service at a time; what all of them logged is kept, and written beside the workspace at the end.

    `async with` starts the first service; whatever runs at the end is killed.
    """

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.workspace.create()
        self.client = Client(self.workspace.state / "vocable.sock")
        self.up = asyncio.Event()
        """Set while the service answers, as far as is known."""
        self.log: list[str] = []
        self.rows: dict[str, Row] = {}
        """The history as it was found last."""
        self.gift = root / "gift"
        """A word that somebody made."""

    async def __aenter__(self) -> House:
        await self.start()
        await self.until_up()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait([self._reading], timeout=GONE_S)
        await self.client.close()
        self.workspace.root.with_suffix(".log").write_text("\n".join(self.log))

    async def start(self) -> None:
        """Spawn the service; `up` follows when it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "daemon", "--workspace", str(self.workspace.root)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            limit=1 << 20,
        )
        self._reading = asyncio.create_task(self._read_log())

    async def until_up(self) -> None:
        """Raises AssertionError when the service does not come up."""
        waiting = asyncio.create_task(self.up.wait())
        await asyncio.wait([waiting, self._reading], timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert self.up.is_set(), f"the service did not come up: {self.log[-5:]}"

    async def kill(self) -> None:
        """Kill the service; whoever belonged to it goes with it, and its history is whole."""
        self.up.clear()
        self._process.kill()
        await self._process.wait()
        await self._reading
        await asyncio.to_thread(self._await_silence)
        await asyncio.to_thread(self.check_history)

    def ask_to_end(self) -> None:
        self.up.clear()
        self._process.send_signal(signal.SIGTERM)

    async def stop(self) -> None:
        """End the service as a user does; it leaves in order and in time."""
        self.ask_to_end()
        await self.until_stopped()

    async def until_stopped(self) -> None:
        assert await asyncio.wait_for(self._process.wait(), STOP_S) == 0
        await self._reading
        await asyncio.to_thread(self._await_silence)
        await asyncio.to_thread(self.check_history)

    def kill_worker(self, pid: int) -> bool:
        """Kill the worker with this id; False when it has ended already."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            is_ours = pid in self._own_processes()
            if is_ours:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            return is_ours
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)

    def check_history(self) -> None:
        """The history, as the service left it, is sound; runs that ended stay as they are; none is missing."""
        database = self.workspace.database
        if not database.exists():
            return
        with tempfile.TemporaryDirectory() as folder:
            for path in database.parent.glob(f"{database.name}*"):
                if not path.name.endswith("-shm"):  # made anew from the log beside it
                    shutil.copy(path, folder)
            with contextlib.closing(sqlite3.connect(Path(folder) / database.name)) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
                    return
                found = copy.execute("SELECT id, state, ended_at, folder FROM runs").fetchall()
        rows = {row[0]: Row(*row[1:]) for row in found}
        for run, row in self.rows.items():
            assert run in rows, f"run {run} is lost"
            if row.state == "finished":
                assert (rows[run].state, rows[run].ended_at) == ("finished", row.ended_at), f"run {run} ran again"
        self.rows = rows

    def check_log(self) -> None:
        """No service met anything it did not expect, and none finished a run that was finished."""
        assert not [line for line in self.log if "Traceback" in line or "could not be handled" in line]
        finished = Counter(found[1] for line in self.log if (found := re.search(r"\[(\w+)\] finished at step", line)))
        assert not {run: times for run, times in finished.items() if times > 1}

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for data in self._process.stderr:
            line = data.decode(errors="replace").rstrip()
            self.log.append(line)
            if " ready on " in line:
                self.up.set()

    def _await_silence(self) -> None:
        """Raises AssertionError when a process of a service that ended goes on."""
        for pid in self._own_processes():
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            gone, _, _ = select.select([handle], [], [], GONE_S)
            os.close(handle)
            assert gone, f"process {pid} outlived its service"

    def _own_processes(self) -> list[int]:
        """Processes that work in the workspace, as services and all that they start do; zombies do not."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and os.readlink(entry / "cwd") == str(self.workspace.root):
                    found.append(int(entry.name))
        return found
