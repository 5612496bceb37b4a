"""The shelves of the service: words and hypernetworks, each a watched folder, and the files that prompts can use.

Part of the service; runs on the event loop. Foreign files are read by the inspector only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from daemon.data import Data
from daemon.hypernetworks import HYPERNETWORKS
from daemon.inspector.inspector import Inspector
from daemon.library import Library
from daemon.paths import Workspace
from daemon.prompts import Prompts
from daemon.protocol.words import (
    ConvertReply,
    ConvertRequest,
    InspectReply,
    InspectRequest,
    ParametersReply,
    ParametersRequest,
    TokensReply,
    TokensRequest,
)
from daemon.recreate import recreate
from daemon.results import Results, claim, delete, rename, restore
from daemon.tables import View
from daemon.targets import Targets
from daemon.wordfiles import check_absolute, convert_file, inspect_files, read_picture_text
from daemon.words import EMBEDDINGS
from engine.errors import VocableError

Noun = Literal["embedding", "hypernetwork"]

_log = logging.getLogger(__name__)


class Shelves:
    """Both libraries, and what is asked of their files.

    Args:
        data: where base models are found.
        on_change: called with the library's topic and table after it changed.
    """

    def __init__(self, workspace: Workspace, data: Data, on_change: Callable[[str, Library[Any]], None]) -> None:
        self._data = data
        self._targets = Targets(data.model_folders, workspace.cache)
        self._fitting: asyncio.Task[None] | None = None
        self._inspector = Inspector()
        self.words = Library(
            EMBEDDINGS,
            folder=workspace.embeddings,
            cache=workspace.cache,
            inspector=self._inspector,
            on_change=lambda: on_change("words", self.words),
        )
        self.hypernetworks = Library(
            HYPERNETWORKS,
            folder=workspace.hypernetworks,
            cache=workspace.cache,
            inspector=self._inspector,
            on_change=lambda: on_change("hypernetworks", self.hypernetworks),
        )
        self._libraries: tuple[Library[Any], ...] = (self.words, self.hypernetworks)
        places: dict[Noun, tuple[Library[Any], Path]] = {
            "embedding": (self.words, workspace.embeddings),
            "hypernetwork": (self.hypernetworks, workspace.hypernetworks),
        }
        self._results = {
            noun: Results(noun, library, folder, workspace.trash_for(folder))
            for noun, (library, folder) in places.items()
        }
        self._prompts = Prompts(self.words, self.hypernetworks, self._targets)

    async def start(self) -> None:
        await asyncio.gather(*(library.start() for library in self._libraries))
        self.fit()

    async def stop(self) -> None:
        if self._fitting:
            self._fitting.cancel()
        await asyncio.gather(*(library.stop() for library in self._libraries))
        await self._inspector.close()

    async def rescan(self) -> None:
        """Look now; on return the tables tell of every file as it was when this was called."""
        await asyncio.gather(*(library.rescan() for library in self._libraries))

    def look_soon(self) -> None:
        for library in self._libraries:
            library.look_soon()

    def health(self) -> dict[str, Any]:
        return {"embeddings": self.words.health(), "hypernetworks": self.hypernetworks.health()}

    def usable(self) -> dict[str, list[dict[str, Any]]]:
        """What the worker is told."""
        return {"words": self.words.usable(), "hypernetworks": self.hypernetworks.usable()}

    def use_model(self, message: Mapping[str, Any]) -> None:
        """Compare files with the model that the worker loaded; before the first that is the starter."""
        name, path = str(message["name"]), str(message.get("path") or message["name"])
        if name and self._targets.use(name, path):
            self.fit()

    def fit(self) -> None:
        """Compare all files with the present model, soon."""
        if self._fitting:
            self._fitting.cancel()
        self._fitting = asyncio.create_task(self._fit())

    def named(self, noun: Noun, name: str) -> list[View]:
        """What there is of a name; see Library.named."""
        return self._results[noun].library.named(name)

    def show(self, noun: Noun, name: str) -> View:
        """What has a name, or else claims it first. Raises VocableError `NOUN.unknown`."""
        return self._results[noun].show(name)

    async def claim(self, noun: Noun, name: str, *, overwrite: bool) -> tuple[Path, Sequence[Path]]:
        """See daemon.results.claim."""
        return await claim(self._results[noun], name, overwrite=overwrite)

    async def delete(self, noun: Noun, name: str) -> View:
        """Move a file to trash/; it is told as it was. Raises VocableError `NOUN.{unknown,several}`, `disk.*`."""
        return await delete(self._results[noun], name)

    async def restore(self, noun: Noun, name: str) -> View:
        """Take a file back out of trash/. Raises VocableError `file.absent`, `NOUN.exists`, `disk.*`."""
        path = await restore(self._results[noun], name)
        return self._results[noun].show_file(name, path)

    async def rename(self, noun: Noun, name: str, new: str) -> View:
        """Give a file another name. Raises VocableError `NOUN.{unknown,several,name,exists}`, `disk.*`."""
        await rename(self._results[noun], name, new)
        return self.show(noun, new)

    async def inspect(self, request: InspectRequest) -> InspectReply:
        """Say what files hold; see inspect_files. Raises VocableError `model.*` for the model to compare with."""
        return await inspect_files(self._inspector, request, await self._targets.find(request.model))

    async def convert(self, request: ConvertRequest) -> ConvertReply:
        return await convert_file(self._inspector, request)

    async def count_tokens(self, request: TokensRequest) -> TokensReply:
        return await self._prompts.count(request, request.model)

    async def read_parameters(self, request: ParametersRequest) -> ParametersReply:
        """Make a request of what a picture says; see recreate."""
        path = Path(check_absolute("path", request.path))
        text = await read_picture_text(self._inspector, path)
        return await asyncio.to_thread(recreate, text, path, self._data.model_folders, self.words.usable())

    async def _fit(self) -> None:
        try:
            target = await self._targets.find("")
            for library in self._libraries:
                library.fit(target)
        except VocableError as error:
            _log.warning("words and hypernetworks cannot be compared with the model: %s", error.title)
