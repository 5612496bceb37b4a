"""Tiny models of each family, made once for all tests, which must leave them as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.models.catalog import read_entry
from engine.models.load import Model, load_model
from tests.engine.models.families import Built, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """Makes a family's model when it is asked for first."""
    root, made = tmp_path_factory.mktemp("families"), dict[str, Built]()

    def get(family: str) -> Built:
        if family not in made:
            made[family] = build(family, root)
        return made[family]

    return get


@pytest.fixture(scope="session")
def loaded() -> Callable[[Path], Model]:
    """Loads a model in float32 on the CPU when it is asked for first."""
    models: dict[Path, Model] = {}

    def get(path: Path) -> Model:
        if path not in models:
            models[path] = load_model(read_entry(path), device=torch.device("cpu"), dtype=torch.float32)
        return models[path]

    return get
