"""What recipes and requests can name: base models, datasets and templates, in the folders that the settings give.

Part of the service. Whatever reads folders or models does so in threads; large models are hashed in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daemon.captions import change_captions, show_dataset
from daemon.hashing import Hashing
from daemon.layouts import all_folders
from daemon.listings import list_datasets, list_templates, show_template
from daemon.paths import Workspace
from daemon.protocol.data import CaptionChange, CaptionsReply, DatasetDetail, DatasetView, TemplateDetail, TemplateView
from daemon.protocol.service import ModelView
from daemon.settings import PathSettings
from engine.models.catalog import ModelEntry, find_model, list_models
from engine.preflight import Resolved, check_recipe
from engine.recipe import Recipe
from engine.text import escape


class Data:
    """The folders, and what lies in them.

    Args:
        on_hash: called when one more model's hash is known.
    """

    def __init__(self, workspace: Workspace, paths: PathSettings, *, on_hash: Callable[[], None]) -> None:
        self._workspace = workspace
        self._hashing = Hashing(workspace.cache, on_hash=on_hash)
        self._captions = asyncio.Lock()
        self.model_folders: list[Path] = []
        """These lists are changed in place when the settings are, so that whoever holds one has the newest."""
        self.dataset_folders: list[Path] = []
        self.template_folders: list[Path] = []
        self._put(self._find_folders(paths))

    async def use(self, paths: PathSettings) -> None:
        """Take over the folders that the settings add to those of the workspace."""
        self._put(await asyncio.to_thread(self._find_folders, paths))

    async def stop(self) -> None:
        await self._hashing.stop()

    def for_worker(self) -> dict[str, Any]:
        """What the worker is told of the folders."""
        return {
            "models": [str(path) for path in self.model_folders],
            "datasets": [str(path) for path in self.dataset_folders],
            "templates": [str(path) for path in self.template_folders],
            "latents": str(self._workspace.latents),
            "cache": str(self._workspace.cache),
        }

    async def find_model(self, reference: str) -> ModelEntry:
        """Raises VocableError `model.unknown` or `model.unreadable`."""
        cache = self._workspace.cache
        return await asyncio.to_thread(lambda: find_model(reference, self.model_folders, cache=cache, wait=False))

    async def resolve(self, recipe: Recipe) -> Resolved:
        """What a recipe names, looked up on the disk. Raises RecipeError with all faults at once."""
        return await asyncio.to_thread(
            check_recipe,
            recipe,
            models=self.model_folders,
            datasets=self.dataset_folders,
            templates=self.template_folders,
            cache=self._workspace.cache,
            wait=False,
        )

    async def models(self) -> list[ModelView]:
        cache = self._workspace.cache
        entries = await asyncio.to_thread(lambda: list_models(self.model_folders, cache=cache, wait=False))
        self._hashing.take(entry.path for entry in entries if not entry.hash)
        return [
            ModelView(**{**asdict(entry), "path": escape(str(entry.path), 5000), "name": escape(entry.name)})
            for entry in entries
        ]

    async def templates(self) -> list[TemplateView]:
        return await asyncio.to_thread(list_templates, self.template_folders)

    async def template(self, name: str) -> TemplateDetail:
        """Raises VocableError `template.unknown`."""
        return await asyncio.to_thread(show_template, name, self.template_folders)

    async def datasets(self) -> list[DatasetView]:
        return await asyncio.to_thread(list_datasets, self.dataset_folders)

    async def dataset(self, name: str) -> DatasetDetail:
        """Raises VocableError `dataset.missing` or `dataset.unreadable`."""
        return await asyncio.to_thread(show_dataset, name, self.dataset_folders)

    async def change_captions(self, name: str, changes: Sequence[CaptionChange]) -> CaptionsReply:
        """Change captions, one client after the other; see daemon.captions for what it raises."""
        async with self._captions:
            return await asyncio.to_thread(change_captions, name, changes, self.dataset_folders)

    def _find_folders(self, paths: PathSettings) -> tuple[list[Path], list[Path], list[Path]]:
        """Looks at the disk."""
        workspace = self._workspace
        return (
            all_folders(workspace.root, workspace.models, "models", paths.models),
            all_folders(workspace.root, workspace.datasets, "datasets", paths.datasets),
            all_folders(workspace.root, workspace.templates, "templates", paths.templates),
        )

    def _put(self, folders: tuple[list[Path], list[Path], list[Path]]) -> None:
        self.model_folders[:], self.dataset_folders[:], self.template_folders[:] = folders
