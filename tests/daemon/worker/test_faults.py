from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from daemon.worker import desk
from daemon.worker.board import Board
from daemon.worker.crashes import DeviceLost
from daemon.worker.faults import explain
from engine.errors import VocableError


def test_a_sentence_that_is_one_already_is_passed_on() -> None:
    error = VocableError("dataset.empty", "No pictures.")
    assert explain(error) is error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_want_of_memory_is_called_that(error: Exception) -> None:
    shown = explain(error)
    assert shown.code == "memory.full"
    assert str(error) in shown.title


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered\nmore"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: unspecified launch failure"),
    ],
)
def test_a_device_that_is_lost_needs_another_process(error: Exception) -> None:
    with pytest.raises(DeviceLost) as caught:
        explain(error)
    assert str(caught.value) == str(error).partition("\n")[0]


def test_what_nobody_foresaw_is_reported_with_its_traceback_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        {}["missing"]
    except KeyError as error:
        shown = explain(error)
    assert shown.code == "worker.error"
    assert "KeyError: 'missing'" in shown.title
    assert "worker.log" in shown.hint
    assert "Traceback" in capsys.readouterr().err


class Script:
    """A channel that hands out prepared messages and keeps what is sent."""

    def __init__(self, *messages: dict) -> None:
        self.inbox = list(messages)
        self.sent: list[dict] = []

    def receive(self, *, wait: bool) -> dict | None:
        return self.inbox.pop(0) if wait else None

    def send(self, message: dict) -> None:
        self.sent.append(message)


SETTINGS = {"do": "settings", "models": [], "datasets": [], "templates": [], "latents": "/nowhere"}
TRAIN = {
    "do": "train",
    "run": "r",
    "recipe": {"name": "x", "data": {"folder": "/x"}},
    "folder": "/x",
    "destination": "",
}


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Make every run end with an exception, in a desk that leaves this process's torch as it is."""
    monkeypatch.setattr(desk, "prepare_device", lambda wanted: torch.device("cpu"))

    def fail(error: Exception) -> None:
        def check_recipe(*arguments: object, **options: object) -> None:
            raise error

        monkeypatch.setattr(desk, "check_recipe", check_recipe)

    return fail


def test_a_run_that_ends_unforeseen_is_reported_and_the_worker_goes_on(fail_with: Callable[[Exception], None]) -> None:
    fail_with(KeyError("pudding"))
    channel = Script(SETTINGS, TRAIN, TRAIN, {"do": "exit"})
    desk.Desk(channel, Board.make()).serve()  # type: ignore[arg-type]
    codes = [message["error"]["code"] for message in channel.sent if message["type"] == "failed"]
    assert codes == ["worker.error", "worker.error"]


def test_a_lost_device_ends_the_process_and_leaves_the_run_to_the_next(fail_with: Callable[[Exception], None]) -> None:
    fail_with(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    channel, board = Script(SETTINGS, TRAIN), Board.make()
    with pytest.raises(DeviceLost, match="an illegal memory access"):
        desk.Desk(channel, board).serve()  # type: ignore[arg-type]
    assert not any(message["type"] == "failed" for message in channel.sent)
    assert board.read().phase == "loading"


def test_a_device_that_is_lost_under_a_job_is_not_held_against_the_run(
    fail_with: Callable[[Exception], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    fail_with(KeyError())
    monkeypatch.setattr(desk, "make_pictures", fail)
    request = {"prompts": ["a"], "output": "/nowhere/a.png"}
    channel, board = Script(SETTINGS, {"do": "generate", "job": "j", "request": request}), Board.make()
    with pytest.raises(DeviceLost):
        desk.Desk(channel, board).serve()  # type: ignore[arg-type]
    assert board.read().phase == "job"
