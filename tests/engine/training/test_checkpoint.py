from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from engine.errors import VocableError
from engine.training import checkpoint
from engine.training.checkpoint import load_newest, save_checkpoint, set_aside


def save(folder: Path, *steps: int, good: int | None = None) -> None:
    for step in steps:
        tensors = {"vectors": torch.full((2, 3), float(step))}
        save_checkpoint(folder, step, tensors, {"step": step}, every=10, good=step if good is None else good)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def newest(folder: Path) -> int | None:
    kept, _ = load_newest(folder)
    return kept.step if kept else None


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path, 120)
    kept, moved = load_newest(tmp_path)
    assert kept is not None
    assert (kept.step, kept.path.name, kept.facts, moved) == (120, "000120", {"step": 120}, ())
    assert torch.equal(kept.tensors["vectors"], torch.full((2, 3), 120.0))


def test_without_checkpoints_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "missing") == (None, ())


def test_rotation_leaves_the_last_three_of_the_interval_and_what_lies_between(tmp_path: Path) -> None:
    save(tmp_path, 10, 15, 20, 27, 30, 40)
    assert steps(tmp_path) == [20, 27, 30, 40]


def test_rotation_leaves_one_in_ten_of_the_older_ones(tmp_path: Path) -> None:
    save(tmp_path, *range(0, 260, 10))
    assert steps(tmp_path) == [0, 100, 200, 230, 240, 250]


def test_rotation_leaves_the_checkpoint_before_updates_that_were_left_out(tmp_path: Path) -> None:
    save(tmp_path, 0, 10, 20)
    save(tmp_path, 30, 40, 50, good=14)
    assert steps(tmp_path) == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty"])
def test_a_damaged_checkpoint_is_moved_and_the_one_before_it_loaded(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 10, 20)
    path = tmp_path / "000020" / name
    data = path.read_bytes()
    path.write_bytes({"truncate": data[:-2], "flip": data[:-3] + b"#" + data[-2:], "remove": b"", "empty": b""}[damage])
    if damage == "remove":
        path.unlink()
    kept, moved = load_newest(tmp_path)
    assert kept is not None
    assert kept.step == 10
    assert [path.parent.name for path in moved] == ["quarantine"]
    assert steps(tmp_path) == [10]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "000020.tmp-abcd").mkdir()
    (tmp_path / "000020.tmp-abcd" / "state.json").write_text("{")
    assert newest(tmp_path) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["000010"]


def test_a_whole_checkpoint_of_the_same_step_stays_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 10)
    before = (tmp_path / "000010" / "manifest.json").stat().st_ino
    save(tmp_path, 10)
    assert (tmp_path / "000010" / "manifest.json").stat().st_ino == before
    (tmp_path / "000010" / "state.json").write_text("{}")
    save(tmp_path, 10)
    assert newest(tmp_path) == 10
    assert (tmp_path / "quarantine").is_dir()


def test_a_full_disk_leaves_the_old_checkpoints_and_no_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 10, 20, 30)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))
    with pytest.raises(VocableError) as caught:
        save(tmp_path, 40)
    assert caught.value.code == "disk.full"
    assert sorted(os.listdir(tmp_path)) == ["000010", "000020", "000030"]


def test_a_checkpoint_that_does_not_read_back_takes_no_name_and_costs_no_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_wrongly(path: Path, data: bytes) -> None:
        path.write_bytes(data[:-1] + b"!" if path.name == "state.safetensors" else data)

    save(tmp_path, 10, 20, 30)
    monkeypatch.setattr(checkpoint, "write_atomically", write_wrongly)
    with pytest.raises(VocableError) as caught:
        save(tmp_path, 40)
    assert caught.value.code == "disk.verify"
    assert sorted(os.listdir(tmp_path)) == ["000010", "000020", "000030"]


def test_going_back_passes_over_pauses_and_sets_later_ones_aside(tmp_path: Path) -> None:
    save(tmp_path, 10, 17, 20, 25)
    kept, _ = load_newest(tmp_path, before=19, every=10)
    assert kept is not None
    assert kept.step == 10
    set_aside(tmp_path, after=10)
    assert steps(tmp_path) == [10]
    assert len(list((tmp_path / "quarantine").iterdir())) == 3
