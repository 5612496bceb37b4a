from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.worker.wire import MAX_MESSAGE, Decoder, WireError, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4), st.integers(1, 50))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(messages: list[dict], size: int) -> None:
    stream = b"".join(encode(message) for message in messages)
    decoder = Decoder()
    received = [
        message for start in range(0, len(stream), size) for message in decoder.feed(stream[start : start + size])
    ]
    decoder.finish()
    assert received == messages


@pytest.mark.parametrize("body", [b"garbage", b"[1, 2]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_message_that_claims_too_much_is_refused_before_it_is_kept() -> None:
    with pytest.raises(WireError, match="claims"):
        Decoder().feed((MAX_MESSAGE + 1).to_bytes(4, "big"))


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(WireError, match="longer"):
        encode({"text": "x" * MAX_MESSAGE})


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
def test_what_json_cannot_hold_is_not_sent(value: object) -> None:
    with pytest.raises(WireError):
        encode({"value": value})


def test_an_end_inside_a_message_is_noticed() -> None:
    decoder = Decoder()
    assert decoder.feed(encode({"a": 1})[:-1]) == []
    with pytest.raises(WireError, match="inside"):
        decoder.finish()
