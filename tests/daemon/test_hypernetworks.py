"""A real folder of hypernetworks with real inspectors, and what people are told of each."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from daemon.hypernetworks import HYPERNETWORKS, MAX_BYTES, find_fitting
from daemon.library import Library
from daemon.protocol.hypernetworks import HypernetworkView
from daemon.tables import Kind, Target
from daemon.words import EMBEDDINGS
from engine.hypernetwork.read import read_hypernetwork
from tests.daemon.networks import TARGET, network, network_file, webui_file
from tests.daemon.test_library import PATIENCE_S, QUICK, Watched
from tests.daemon.words import drop, word_file

SD1 = Target("sd-v1-5", 768, channels=(320, 640, 768, 1280))


class Shelf:
    """A library whose changes can be awaited, and what its inspector had to look at."""

    def __init__(self, root: Path, kind: Kind[Any] = HYPERNETWORKS, **options: Any) -> None:
        self.folder = root / kind.cache
        self.inspector = Watched()
        self._news = asyncio.Event()
        self.library = Library(
            kind,
            folder=self.folder,
            cache=root / "cache",
            inspector=self.inspector,
            on_change=self._news.set,
            timing=QUICK,
            **options,
        )
        self.library.fit(TARGET)

    @property
    def views(self) -> dict[str, HypernetworkView]:
        """By file, relative to the folder."""
        views = [HypernetworkView.model_validate(view) for view in self.library.table.views]
        return {str(Path(view.path).relative_to(self.folder)): view for view in views}

    @property
    def usable(self) -> set[str]:
        return {view.name for view in self.views.values() if view.usable}

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


Open = Callable[..., Awaitable[Shelf]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hypernetworks").mkdir()
    return tmp_path / "hypernetworks"


@pytest.fixture
async def open_shelf(tmp_path: Path) -> AsyncIterator[Open]:
    opened: list[Shelf] = []

    async def begin(**options: Any) -> Shelf:
        opened.append(Shelf(tmp_path, **options))
        await opened[-1].library.start()
        return opened[-1]

    yield begin
    for shelf in opened:
        await shelf.library.stop()
        await shelf.inspector.close()


def read(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize("polling", [None, True])
async def test_a_file_dropped_replaced_renamed_and_removed_is_a_hypernetwork_likewise(
    folder: Path, open_shelf: Open, polling: bool | None
) -> None:
    shelf = await open_shelf(polling=polling)
    drop(folder / "ink.pt", webui_file(0.25))
    await shelf.until(lambda: shelf.usable == {"ink"})
    view = shelf.views["ink.pt"]
    assert (view.sizes, view.activation, view.step, view.flavour) == ([1, 0.25, 1], "relu", 7, "webui-pt")
    assert (view.widths, view.reason, view.warning) == ([*TARGET.channels], "", "")
    (told,) = shelf.library.usable()
    canonical = read_hypernetwork(read(told["path"]), "ink")
    assert canonical.flavour == "safetensors"
    assert all((canonical.widths[96][0][name] == 0.25).all() for name in canonical.widths[96][0])

    (folder / "ink.pt").write_bytes(webui_file(0.75, step=9))
    await shelf.until(lambda: shelf.views["ink.pt"].step == 9)
    assert shelf.library.usable()[0]["hash"] != told["hash"]

    (folder / "styles").mkdir()
    (folder / "ink.pt").rename(folder / "styles" / "red ink.pt")
    await shelf.until(lambda: shelf.usable == {"red ink"})
    (folder / "styles" / "red ink.pt").unlink()
    await shelf.until(lambda: shelf.usable == set())


async def test_bad_files_say_why_and_hide_no_good_one(folder: Path, tmp_path: Path, open_shelf: Open) -> None:
    good = network_file()
    (folder / "ink.safetensors").write_bytes(good[:-10])
    (folder / "ink.pt").write_bytes(webui_file())
    (folder / "noise.pt").write_bytes(b"\xde\xad\xbe\xef" * 100)
    (folder / "odd.safetensors").write_bytes(good.replace(b"0.25", b"0.50"))
    (folder / "wide.safetensors").write_bytes(network_file(widths=(320, 768)))
    (folder / "...pt").write_bytes(good)
    os.mkfifo(folder / "pipe.pt")
    with (folder / "huge.pt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert [name for name, view in shelf.views.items() if view.usable] == ["ink.pt"]
    reasons = {name: view.reason for name, view in shelf.views.items() if not view.usable}
    assert all(len(reason) > 20 for reason in reasons.values())
    assert "320, 768" in reasons["wide.safetensors"]
    assert "96, 128, 160" in reasons["wide.safetensors"]
    assert "models/" in reasons["huge.pt"]
    assert shelf.views["wide.safetensors"].verdict == "wrong_width"
    assert shelf.views["odd.safetensors"].verdict == "unreadable"


@pytest.mark.parametrize(
    ("kind", "data", "place"),
    [(HYPERNETWORKS, word_file(), "embeddings/"), (EMBEDDINGS, webui_file(), "hypernetworks/")],
)
async def test_a_file_in_the_other_kinds_folder_is_told_where_it_belongs(
    tmp_path: Path, open_shelf: Open, kind: Kind[Any], data: bytes, place: str
) -> None:
    shelf = await open_shelf(kind=kind)
    drop(shelf.folder / "stray.pt", data)
    await shelf.until(lambda: shelf.views)
    assert f"Move it to {place}" in shelf.views["stray.pt"].reason
    assert "holds a" in shelf.views["stray.pt"].reason


async def test_a_content_is_inspected_once_good_or_bad_also_after_a_restart(folder: Path, open_shelf: Open) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.safetensors").write_bytes(network_file())
        (folder / f"cut {name}.safetensors").write_bytes(network_file()[:-1])
    first = await open_shelf()
    await first.library.rescan()
    assert len(first.inspector.seen) == 2
    second = await open_shelf()
    await second.library.rescan()
    assert second.inspector.seen == []
    assert second.views == first.views


async def test_a_deleted_cache_is_made_again(folder: Path, tmp_path: Path, open_shelf: Open) -> None:
    (folder / "ink.safetensors").write_bytes(network_file())
    shelf = await open_shelf()
    await shelf.library.rescan()
    shutil.rmtree(tmp_path / "cache")
    await shelf.library.rescan()
    with safe_open(shelf.library.usable()[0]["path"], "np") as file:
        assert len(file.keys()) == 2 * 4 * len(TARGET.channels)


async def test_of_equal_names_one_has_it_and_a_good_one_goes_before_one_that_does_not_fit(
    folder: Path, open_shelf: Open
) -> None:
    (folder / "sub").mkdir()
    (folder / "ink.safetensors").write_bytes(network_file(widths=(320, 768)))
    (folder / "sub" / "Ink.pt").write_bytes(webui_file(0.5))
    (folder / "sub" / "ink.pt").write_bytes(webui_file(0.75))
    shelf = await open_shelf()
    await shelf.library.rescan()
    verdicts = {name: view.verdict for name, view in shelf.views.items()}
    assert verdicts == {"ink.safetensors": "wrong_width", "sub/Ink.pt": "usable", "sub/ink.pt": "shadowed"}
    assert "sub/Ink.pt has the same name" in shelf.views["sub/ink.pt"].reason
    told = shelf.library.usable()
    assert [entry["name"] for entry in told] == ["ink", "Ink"]
    assert find_fitting(told, TARGET)["ink"]["widths"] == [*TARGET.channels]
    assert find_fitting(told, SD1)["ink"]["widths"] == [320, 768]
    assert [path.name for path in shelf.library.files("INK")] == ["Ink.pt", "ink.safetensors", "ink.pt"]


async def test_another_base_model_and_idle_widths_are_warned_of(folder: Path, open_shelf: Open) -> None:
    (folder / "ink.pt").write_bytes(webui_file(model="anime\x1b[31m", model_hash="", widths=(96, 320)))
    shelf = await open_shelf()
    await shelf.library.rescan()
    warning = shelf.views["ink.pt"].warning
    assert "no attention of 320 channels" in warning
    assert "trained on anime" in warning
    assert warning.isprintable()
    shelf.library.fit(Target("sdxl", 2048, split=768, family="sdxl", channels=(640, 1280, 2048)))
    await shelf.until(lambda: shelf.usable == set())
    assert "SDXL" in shelf.views["ink.pt"].reason


async def test_many_files_are_told_in_the_end_all(folder: Path, open_shelf: Open) -> None:
    for number in range(150):
        (folder / f"ink {number}.safetensors").write_bytes(network_file(number / 1000, widths=(96,)))
    shelf = await open_shelf()
    await shelf.until(lambda: len(shelf.usable) == 150)
    assert len(shelf.inspector.seen) == len(set(shelf.inspector.seen)) == 150


def make_large(path: Path, dtype: torch.dtype) -> None:
    """One of SD 1.x' real size in megabytes, of one width."""
    width = 1280
    module = {
        "linear.0.weight": torch.zeros(2 * width, width, dtype=dtype),
        "linear.0.bias": torch.zeros(2 * width, dtype=dtype),
        "linear.2.weight": torch.zeros(4 * width, 2 * width, dtype=dtype),
        "linear.2.bias": torch.zeros(4 * width, dtype=dtype),
        "linear.4.weight": torch.zeros(width, 4 * width, dtype=dtype),
        "linear.4.bias": torch.zeros(width, dtype=dtype),
    }
    values = {width: (module, {key: tensor.clone() for key, tensor in module.items()}), "step": 100, "name": "large"}
    values |= {"layer_structure": [1, 2, 4, 1], "activation_func": "relu", "is_layer_norm": False}
    torch.save(values, path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
async def test_a_file_of_real_size_is_read_within_its_limits(
    folder: Path, open_shelf: Open, dtype: torch.dtype
) -> None:
    make_large(folder / "large.pt", dtype)
    shelf = await open_shelf()
    shelf.library.fit(SD1)
    await shelf.until(lambda: "large" in shelf.usable)
    view = shelf.views["large.pt"]
    assert (view.widths, view.parameters > 30_000_000) == ([1280], True)
    with safe_open(shelf.library.usable()[0]["path"], "np") as file:
        assert file.get_tensor("1280.k.linear.0.weight").dtype == np.float32


def test_the_models_channels_are_those_of_its_attention() -> None:
    assert tuple(sorted(network().widths)) == TARGET.channels == (96, 128, 160)
