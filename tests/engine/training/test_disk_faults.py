"""Each system call in turn fails, falls short, or is the last before a kill or a power cut.

Whatever happened, the newest verified checkpoint loads and the word in its folder is wholly the old or the new one.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors, save_embedding
from engine.errors import VocableError
from engine.models.load import Model
from engine.training.checkpoint import load_newest, save_checkpoint
from engine.training.job import TrainingJob
from engine.training.outputs import LossTable, deliver
from engine.training.report import Reading
from tests.engine.training.conftest import MakeJob, Result, result, run_to_end
from tests.faults import Ended, Fault, Names, count_calls, faulty_disk, kill_at

OLD, NEW = (Embedding("mia", np.full((2, 8), value, np.float32), step=3) for value in (0.5, 0.25))
FAULTS: tuple[Fault, ...] = ("EIO", "ENOSPC", "EACCES", "short", "full")


@dataclass(frozen=True)
class Scenario:
    """Work on a folder, and what must hold of the folder before, during (`done` False) and after it."""

    prepare: Callable[[Path], object]
    work: Callable[[Path], object]
    check: Callable[[Path, bool], None]


def each_call(tmp_path: Path, scenario: Scenario) -> Iterator[tuple[Path, int]]:
    """A prepared folder for each system call of the work, with the call's number."""
    for at in range(count_calls(prepared(tmp_path / "0", scenario), lambda: scenario.work(tmp_path / "0"))):
        yield prepared(tmp_path / str(at + 1), scenario), at + 1


def prepared(root: Path, scenario: Scenario) -> Path:
    root.mkdir()
    scenario.prepare(root)
    return root


def save(root: Path, *steps: int) -> None:
    for step in steps:
        tensors = {"vectors": torch.full((2, 3), float(step))}
        save_checkpoint(root / "run" / "checkpoints", step, tensors, {"step": step}, every=10, good=step)


def newest(root: Path) -> int | None:
    kept, _ = load_newest(root / "run" / "checkpoints")
    assert kept is None or torch.equal(kept.tensors["vectors"], torch.full((2, 3), float(kept.step)))
    return kept.step if kept else None


def check_first(root: Path, done: bool) -> None:
    assert newest(root) in ([0] if done else [None, 0])


def check_next(root: Path, done: bool) -> None:
    assert newest(root) in ([50] if done else [40, 50])
    for path in (root / "run" / "checkpoints").glob("0*[0-9]"):
        assert sorted(os.listdir(path)) == ["manifest.json", "state.json", "state.safetensors"]


def damage(root: Path) -> None:
    save(root, 10, 20, 30)
    (root / "run" / "checkpoints" / "000030" / "state.json").write_text("{}")


def check_damaged(root: Path, _done: bool) -> None:
    """Another checkpoint loads, and nothing was deleted: not even what is damaged."""
    assert newest(root) in (10, 20)
    kept = {path.read_bytes() for path in (root / "run" / "checkpoints").rglob("manifest.json")}
    assert len(kept) == 3


def deliver_old(root: Path) -> None:
    save_embedding(root / "words" / "mia.safetensors", OLD)
    (root / "run").mkdir()


def check_word(root: Path, done: bool) -> None:
    """The old word is in its place, or the new one is and the old one is kept."""
    word = (root / "words" / "mia.safetensors").read_bytes()
    if word != encode_safetensors(NEW):
        assert not done
        assert word == encode_safetensors(OLD)
    else:
        assert (root / "run" / "replaced" / "mia.safetensors").read_bytes() == encode_safetensors(OLD)


@pytest.fixture(params=["first checkpoint", "next checkpoint", "damaged checkpoint", "word"])
def scenario(request: pytest.FixtureRequest, make_job: MakeJob) -> Scenario:
    job = make_job()

    def deliver_new(root: Path) -> None:
        deliver(placed(job, root), NEW)

    return {
        "first checkpoint": Scenario(lambda root: None, lambda root: save(root, 0), check_first),
        "next checkpoint": Scenario(
            lambda root: save(root, 0, 10, 20, 30, 40), lambda root: save(root, 50), check_next
        ),
        "damaged checkpoint": Scenario(damage, newest, check_damaged),
        "word": Scenario(deliver_old, deliver_new, check_word),
    }[request.param]


def placed(job: TrainingJob, root: Path) -> TrainingJob:
    return replace(job, folder=root / "run", destination=root / "words" / "mia.safetensors")


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_call_that_failed_the_old_or_the_new_is_whole_and_another_try_succeeds(
    tmp_path: Path, scenario: Scenario, fault: Fault
) -> None:
    for root, at in each_call(tmp_path, scenario):
        done = False
        with faulty_disk(root, at=at, fault=fault), suppress(VocableError):
            scenario.work(root)
            done = True
        scenario.check(root, done)
        scenario.work(root)
        scenario.check(root, True)


@pytest.mark.parametrize("names", ["synced", "all"])
def test_after_a_power_cut_at_any_call_the_old_or_the_new_is_whole(
    tmp_path: Path, scenario: Scenario, names: Names
) -> None:
    for root, at in each_call(tmp_path, scenario):
        after = tmp_path / f"after-{at}"
        with faulty_disk(root, at=at, fault="end") as disk:
            with suppress(Ended):
                scenario.work(root)
            disk.cut_power(after, names=names)
        scenario.check(after, False)


def test_what_was_said_to_be_written_survives_a_power_cut(tmp_path: Path, scenario: Scenario) -> None:
    root = prepared(tmp_path / "root", scenario)
    with faulty_disk(root) as disk:
        scenario.work(root)
        disk.cut_power(tmp_path / "after", names="synced")
    scenario.check(tmp_path / "after", True)


def test_after_a_kill_at_any_call_the_old_or_the_new_is_whole_and_the_remains_go(
    tmp_path: Path, scenario: Scenario
) -> None:
    for root, at in each_call(tmp_path, scenario):
        assert kill_at(root, at, lambda root=root: scenario.work(root))
        scenario.check(root, False)
        assert not list(root.glob("run/checkpoints/*.tmp-*"))


def test_losses_that_did_not_fit_on_the_disk_leave_whole_rows(tmp_path: Path) -> None:
    def table(root: Path) -> LossTable:
        return LossTable(root, every=1, epoch_of=lambda step: (0, step))

    def add(root: Path, *steps: int) -> None:
        table(root).add(Reading(step, 0.1, 0.5, moved=True) for step in steps)

    scenario = Scenario(lambda root: add(root, 1), lambda root: add(root, 2, 3), lambda root, done: None)
    for root, at in each_call(tmp_path, scenario):
        with faulty_disk(root, at=at, fault="full"), suppress(VocableError):
            scenario.work(root)
        rows = (root / "textual_inversion_loss.csv").read_text().splitlines()
        assert rows[1:] in (["1,0,0,0.5000000,0.1"], [f"{n},0,{n - 1},0.5000000,0.1" for n in (1, 2, 3)])


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_everything_written_has_the_mode_that_the_umask_leaves(tmp_path: Path, scenario: Scenario, mask: int) -> None:
    before = os.umask(mask)
    try:
        scenario.work(prepared(tmp_path / "root", scenario))
    finally:
        os.umask(before)
    for path in (tmp_path / "root").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~mask


@pytest.mark.chaos
@pytest.mark.parametrize("fault", [*FAULTS, "synced", "all"])
def test_a_whole_run_goes_on_to_the_same_numbers_after_a_fault_at_any_call(
    starter: Model, make_job: MakeJob, straight: Result, tmp_path: Path, fault: Fault | Names
) -> None:
    job, draw = make_job(), random.Random(fault)
    (tmp_path / "0").mkdir()
    calls = count_calls(tmp_path / "0", lambda: run_to_end(starter, placed(job, tmp_path / "0")))
    for at in draw.sample(range(1, calls + 1), 25):
        root = tmp_path / str(at)
        root.mkdir()
        failing: Fault = "end" if fault in ("synced", "all") else fault
        with faulty_disk(root, at=at, fault=failing) as disk:
            with suppress(VocableError, Ended):
                run_to_end(starter, placed(job, root))
            if fault in ("synced", "all"):
                disk.cut_power(tmp_path / f"after-{at}", names=fault)
                root = tmp_path / f"after-{at}"
        again = placed(job, root)
        run_to_end(starter, again)
        assert result(again) == straight
