"""What a careful user asks of the service, day after day, and insists on while services and workers are killed.

A request without an answer is repeated, a run with the key of its first request; a job that went with its service is
asked for again; a queue that is paused after too many lost workers is resumed. Every day ends when all of it is done.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import tomlkit
from PIL import Image

from daemon.protocol.jobs import CreateEmbedding, EvaluateRequest, GenerateRequest, JobView
from daemon.protocol.runs import MoveRun, RunView
from daemon.protocol.words import ConvertRequest
from engine.errors import VocableError
from engine.models.starter.sample import HELD_OUT_DIR, TRAIN_DIR
from tests.chaos.house import House
from tests.chaos.recipes import Yield, find_differences, recipe, vectors_in
from tests.chaos.watcher import LOST, Watcher

Reply = TypeVar("Reply")

PASSING = (*LOST, "queue.paused")
"""A request that is refused with one of these is repeated."""
JOB_LOST = ("worker.lost", "worker.crash_loop", "service.stopping")
"""A job that failed with one of these is asked for again."""
HARMLESS = {"worker.lost", "queue.paused"}
"""Warnings that a run may bear; another one would say that it is not what it would have been."""


class User:
    """Acts on a house and sees what the watcher sees.

    Args:
        twins: what an undisturbed run of each recipe left.
        random: decides when the user has patience.
        patience: how often, from 0 to 1, the user waits until the service starts the next worker by itself.
    """

    def __init__(
        self, house: House, watcher: Watcher, twins: Mapping[str, Yield], random: random.Random, *, patience: float
    ) -> None:
        self._house = house
        self._patience = patience
        self._watcher = watcher
        self._twins = twins
        self._random = random
        self.cut_short = 0
        """Previews that were killed."""
        self._finished: dict[str, int] = {}
        """When the words of finished runs were written."""

    async def spend_day(self, day: int, *, whole: bool = True) -> None:
        """Ask for everything and wait until it is done; a day that is not `whole` has less in it."""
        deeds = [self._measure, self._drop_recipe, self._picture, self._drop_word]
        more = [self._rest, self._stop, self._make_words, self._evaluate_and_cancel, self._bring_dataset, self._convert]
        async with asyncio.TaskGroup() as group:
            for deed in (*deeds, *(more if whole else ())):
                group.create_task(deed(day))
        self.check_words()

    async def keep_queue_going(self) -> None:
        """Resume a queue that is paused; a user of little patience has no worker waited for either."""
        boot, is_patient = "", False
        while True:
            await self._watcher.until(
                lambda: self._watcher.queue.state == "paused" or self._watcher.worker.state == "failed", float("inf")
            )
            is_paused = self._watcher.queue.state == "paused"
            if boot != self._watcher.boot or is_paused:
                boot, is_patient = self._watcher.boot, self._random.random() < self._patience
            if is_paused or not is_patient:
                self._watcher.note("paused queue" if is_paused else "pause cut short")
                await self.insist(self._house.client.resume_queue)
            before = self._states()
            await self._watcher.until(lambda before=before: self._states() != before, float("inf"))

    async def insist(self, request: Callable[[], Awaitable[Reply]]) -> Reply:
        """Repeat a request until it is answered."""
        while True:
            await self._house.up.wait()
            self._watcher.note("request")
            try:
                return await request()
            except VocableError as error:
                if error.code not in PASSING:
                    raise
                await asyncio.sleep(0.02)

    def check_words(self) -> None:
        """Nobody wrote the word of a run again that was finished."""
        for path, written in self._finished.items():
            assert os.stat(path).st_mtime_ns == written, f"{path} was written again"

    async def _measure(self, day: int) -> None:
        """Train a word, before all others when there are some."""
        run = (await self._create("measured", f"measured{day}")).id
        await self._while_possible(lambda: self._house.client.move(run, MoveRun(place="first")))
        await self._finish(run, "measured")

    async def _rest(self, day: int) -> None:
        """Pause a run and resume it."""
        run = (await self._create("rested", f"rested{day}")).id
        await self._watcher.until(lambda: self._view(run).step > 0)
        await self._while_possible(lambda: self._house.client.command(run, "pause"))
        await self._watcher.until(lambda: self._view(run).state in ("paused", "finished"))
        await self._while_possible(lambda: self._house.client.command(run, "resume"))
        await self._finish(run, "rested")

    async def _stop(self, day: int) -> None:
        """Stop a run, which leaves its word; put it into the trash, and take it back on every other day."""
        run = (await self._create("short", f"short{day}")).id
        await self._watcher.until(lambda: self._view(run).step > 5)  # there is a checkpoint with something learnt
        await self.insist(lambda: self._house.client.command(run, "stop"))
        view = await self._watcher.until(lambda: self._ended(run))
        assert view.state == "stopped"
        vectors_in(view.embedding)
        await self._until_gone(lambda: self._house.client.delete_run(run))
        if day % 2 == 0:
            await self._until_gone(lambda: self._house.client.restore_run(run))
            view = await self.insist(lambda: self._house.client.run(run))
            assert "log.txt" in os.listdir(view.folder)

    async def _drop_recipe(self, day: int) -> None:
        """Put a recipe into the inbox, as a copying program does."""
        name = f"dropped{day}"
        path = self._house.workspace.inbox / f"{name}.toml"
        path.write_text(tomlkit.dumps(recipe("dropped", name)))
        await self._finish(await self._find_run(name), "dropped")

    async def _bring_dataset(self, day: int) -> None:
        """Put a dataset with its recipe into the folder of datasets."""
        folder = self._house.workspace.datasets / f"brought{day}"
        await asyncio.to_thread(shutil.copytree, TRAIN_DIR, folder)
        values = recipe("dropped", folder.name)
        del values["data"]
        (folder / "vocable.toml").write_text(tomlkit.dumps(values))
        await self._finish(await self._find_run(folder.name), "dropped")

    async def _picture(self, day: int) -> None:
        """Have pictures made while runs train, also of a word that was taught the day before."""
        word = f"measured{day - 1}" if day else "a girl"
        output = self._house.workspace.root / f"picture{day}.png"
        prompts = [f"portrait of {word}", "portrait of a boy"]
        request = GenerateRequest(prompts=prompts, steps=6, seed=day, output=str(output))
        done = await self._have_done(lambda: self._house.client.generate(request))
        for path in done.result["pictures"]:
            with Image.open(path) as picture:
                picture.load()

    async def _drop_word(self, day: int) -> None:
        """Put somebody's word into the folder, and take it out when it was seen."""
        path = self._house.workspace.embeddings / f"gift{day}.safetensors"
        shutil.copy(self._house.gift, path)
        await self._until_words(lambda names: path.stem in names)
        path.unlink()
        await self._until_words(lambda names: path.stem not in names)

    async def _convert(self, day: int) -> None:
        """Write a word for another program, over the file of the day before."""
        output = self._house.workspace.root / "converted.pt"
        request = ConvertRequest(path=str(self._house.gift), format="webui-pt", output=str(output), overwrite=True)
        await self.insist(lambda: self._house.client.convert(request))
        assert vectors_in(str(output)) == vectors_in(str(self._house.gift))

    async def _make_words(self, day: int) -> None:
        """Make the same word anew each day, so that the old one goes to the trash."""
        request = CreateEmbedding(name="made", init_text=f"{'girl' if day % 2 else 'boy'}", vectors=1, overwrite=True)
        done = await self._have_done(lambda: self._house.client.create_embedding(request))
        vectors_in(done.result["embedding"])

    async def _evaluate_and_cancel(self, day: int) -> None:
        """Measure a loss; then ask for many pictures and think better of it."""
        request = EvaluateRequest(folder=str(HELD_OUT_DIR), phrases=["a girl"])
        await self._have_done(lambda: self._house.client.evaluate(request))
        output = str(self._house.workspace.root / "unwanted.png")
        many = GenerateRequest(prompts=["a girl"], count=64, steps=50, output=output)
        job = (await self.insist(lambda: self._house.client.generate(many))).id
        view: JobView | None = None
        while view is None or view.state in ("queued", "running"):
            try:
                await self.insist(lambda: self._house.client.cancel_job(job))
                view = await self.insist(lambda: self._house.client.job(job))
            except VocableError as error:
                if error.code != "job.unknown":
                    raise
                return
        assert view.state in ("cancelled", "failed")

    async def _create(self, kind: str, name: str) -> RunView:
        values = recipe(kind, name)
        view = await self.insist(lambda: self._house.client.create_run(values, key=f"key of {name}"))
        self._watcher.runs.setdefault(view.id, view)
        return view

    async def _find_run(self, name: str) -> str:
        """The run of this name, once there is one."""

        def find() -> str | None:
            return next((view.id for view in self._watcher.runs.values() if view.name == name), None)

        found: str = await self._watcher.until(find)
        return found

    async def _finish(self, run: str, kind: str) -> None:
        """Wait for the run's end, which must be that of its undisturbed twin."""
        view = await self._watcher.until(lambda: self._ended(run))
        assert (view.state, view.error) == ("finished", None)
        assert {warning.code for warning in view.warnings} <= HARMLESS, view.warnings
        left = await self.insist(lambda: Yield.of(self._house.client, run))
        other = find_differences(left, self._twins[kind])
        if other:
            self._watcher.blame(f"{view.name} ({view.folder}) is not what it would have been: {other}")
        self.cut_short += len(self._twins[kind].pictures) - len(left.pictures)
        self._finished[view.embedding] = os.stat(view.embedding).st_mtime_ns

    async def _have_done(self, ask: Callable[[], Awaitable[JobView]]) -> Any:
        """The view of a job that was done, be it asked for again and again."""
        while True:
            view = await self.insist(ask)
            try:
                while view.state in ("queued", "running"):
                    identifier = view.id
                    view = await self._house.client.job(identifier)
            except VocableError as error:
                if error.code not in (*PASSING, "job.unknown"):
                    raise
                continue
            if view.state == "done":
                return view
            assert view.error is not None
            assert view.error.code in JOB_LOST, view.error

    async def _while_possible(self, command: Callable[[], Awaitable[Any]]) -> None:
        """Give a command to a run that may have got past it meanwhile."""
        try:
            await self.insist(command)
        except VocableError as error:
            if error.code != "run.state":
                raise

    async def _until_gone(self, move: Callable[[], Awaitable[Any]]) -> None:
        """Move a run to the trash or back; that it is gone is the answer to a request whose answer was lost."""
        try:
            await self.insist(move)
        except VocableError as error:
            if error.code != "run.unknown":
                raise

    async def _until_words(self, condition: Callable[[set[str]], bool]) -> None:
        while True:
            before = self._watcher.words
            if condition({word.name for word in await self.insist(self._house.client.words)}):
                return
            await self._watcher.until(lambda before=before: self._watcher.words != before)

    def _states(self) -> tuple[str, str, str]:
        return self._watcher.boot, self._watcher.worker.state, self._watcher.queue.state

    def _view(self, run: str) -> RunView:
        return self._watcher.runs[run]

    def _ended(self, run: str) -> RunView | None:
        view = self._watcher.runs[run]
        return view if view.state in ("finished", "stopped", "failed") else None
