"""The packaged starter model, loaded once for all tests of the engine; tests must leave it as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from engine.models.catalog import ModelEntry, find_model
from engine.models.load import Model, load_model

settings.register_profile("engine", deadline=None, derandomize=True)
settings.load_profile("engine")


@pytest.fixture(scope="session")
def starter_entry() -> ModelEntry:
    return find_model("starter", [])


@pytest.fixture(scope="session")
def starter(starter_entry: ModelEntry) -> Model:
    return load_model(starter_entry, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def copy_starter(starter_entry: ModelEntry, tmp_path: Path) -> Callable[[str], Path]:
    """Puts a copy of the starter's folder, which a test may damage, into `tmp_path` under a name."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(starter_entry.path, tmp_path / name))

    return copy
