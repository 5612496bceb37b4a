"""Mutated files dropped into the embeddings folder of a live service: nothing runs, nothing crashes, nothing stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.inspector.frames import Message
from daemon.inspector.inspector import Inspector
from daemon.paths import Workspace
from engine.errors import VocableError
from tests.daemon.conftest import serving
from tests.daemon.words import word_file
from tests.engine.embedding.hostile_files import CANARY
from tests.fuzz import mutants

SEED = 20260801
BATCH = 500
PATIENCE_S = 600.0

AUDITED = """
import os, sys
from daemon.inspector import child, main
BARRED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill", "os.putenv", "os.remove",
    "os.rename", "os.mkdir", "subprocess.Popen", "socket.", "ctypes.", "pickle.find_class", "marshal.", "compile",
    "exec", "code.__new__", "shutil.", "webbrowser.")
watching = False
def hook(event, arguments):
    if not watching:
        return
    writes = event == "open" and (arguments[1] not in (None, "r", "rb") or arguments[2] & 3)
    if writes or event.startswith(BARRED):
        os._exit(99)
sys.addaudithook(hook)
operations = dict(child.OPERATIONS)
def watched(header, parts):
    global watching
    watching = True
    try:
        if parts[0] == b"canary":
            eval("1")
        return operations[header["do"]](header, parts)
    finally:
        watching = False
child.OPERATIONS = dict.fromkeys(operations, watched)
main.main()
"""
"""A fork server whose children leave with code 99 when reading does anything but compute."""


class Audited(Inspector):
    """Tells which contents were read, and which of them ended their child."""

    made: Audited

    def __init__(self) -> None:
        super().__init__(command=(sys.executable, "-c", AUDITED))
        self.read: set[str] = set()
        self.lost: list[tuple[str, bytes]] = []
        Audited.made = self

    async def ask(self, question: Message, parts: Sequence[bytes]) -> tuple[Message, list[bytes]]:
        try:
            return await super().ask(question, parts)
        except VocableError as error:
            if error.code.startswith("inspector."):
                self.lost.append((error.title, parts[0]))
            raise
        finally:
            self.read.add(hashlib.sha256(parts[0]).hexdigest())


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.chaos)])
async def test_a_service_lives_with_whatever_is_dropped_into_its_folder(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("daemon.shelves.Inspector", Audited)
    before = len(os.listdir("/proc/self/fd")), children()
    files = mutants(SEED, count)
    async with serving(workspace) as running:
        for start in range(0, count, BATCH):
            folder = workspace.embeddings / f"batch {start}"
            folder.mkdir()
            hashes = set()
            for number in range(start, min(start + BATCH, count)):
                suffix, data = next(files)
                (folder / f"mutant {number}{suffix}").write_bytes(data)
                hashes.add(hashlib.sha256(data).hexdigest())
            async with asyncio.timeout(PATIENCE_S):
                while not hashes <= Audited.made.read:  # noqa: ASYNC110 - the service does not tell of each file
                    await asyncio.sleep(0.05)
        (workspace.embeddings / "good.safetensors").write_bytes(word_file(width=128))
        async with asyncio.timeout(PATIENCE_S):
            while not any(word.name == "good" and word.usable for word in await running.client.words()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not Audited.made.lost
        with pytest.raises(VocableError, match="exit code 99"):
            await Audited.made.ask({"do": "read words"}, [b"canary"])
    assert (len(os.listdir("/proc/self/fd")), children()) == before
    assert not list(Path.cwd().glob(f"**/{CANARY}"))
