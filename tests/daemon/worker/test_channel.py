from __future__ import annotations

import socket
import threading

import pytest

from daemon.worker.channel import Channel, Outbox
from daemon.worker.wire import Decoder, WireError


def progress(step: int) -> dict:
    return {"type": "event", "run": "r", "event": {"event": "progress", "step": step, "losses": [{"step": step}]}}


def fact(step: int) -> dict:
    return {"type": "event", "run": "r", "event": {"event": "checkpoint", "step": step}}


def drain(outbox: Outbox, count: int) -> list[dict]:
    return [message for _ in range(count) for message in Decoder().feed(outbox.take())]


def test_progress_that_waits_is_joined_and_loses_no_loss() -> None:
    outbox = Outbox()
    for message in (progress(1), progress(2), fact(2), progress(3), progress(4), progress(5)):
        outbox.put(message)
    events = [message["event"] for message in drain(outbox, 3)]
    assert [(event["event"], event["step"]) for event in events] == [
        ("progress", 2),
        ("checkpoint", 2),
        ("progress", 5),
    ]
    assert [loss["step"] for event in events for loss in event.get("losses", ())] == [1, 2, 3, 4, 5]


def test_only_the_newest_waiting_report_of_a_job_is_sent() -> None:
    outbox = Outbox()
    for done in range(5):
        outbox.put({"type": "job", "job": "a", "done": done, "total": 5})
    outbox.put({"type": "job", "job": "b", "done": 0, "total": 1})
    assert [(message["job"], message["done"]) for message in drain(outbox, 2)] == [("a", 4), ("b", 0)]


def test_a_message_that_cannot_be_sent_fails_where_it_was_made() -> None:
    with pytest.raises(WireError):
        Outbox().put({"type": "job", "job": "a", "loss": float("nan")})


def test_sending_does_not_wait_for_a_supervisor_that_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(theirs.detach())
    writer = threading.Thread(target=channel._write, daemon=True)
    writer.start()
    for step in range(1000):
        channel.send({**fact(step), "padding": "x" * 1000})
    decoder = Decoder()
    received: list[dict] = []
    while len(received) < 1000:
        received += decoder.feed(ours.recv(1 << 16))
    assert [message["event"]["step"] for message in received] == list(range(1000))
    ours.close()
    channel._socket.close()
