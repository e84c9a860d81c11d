"""JSON that is nested too deep is refused before it is stored, and what cannot be read costs its own stream alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.client.values import Received, encoded_bytes
from unbroken.errors import ProtocolError, TooLargeError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import Message, NewMessage, decode_message, decode_messages, encode_message, payload_bytes
from unbroken.protocol import client_outputs as out
from unbroken.protocol.client import ClientSession
from unbroken.protocol.codec import ReceivedMessages, decode_server, messages_frame, messages_prefix
from unbroken.protocol.frames import Subscribe, Unsubscribe

MOST = DEFAULT_LIMITS.json_depth_max
FAR = 100_000
"""Deeper than any stack."""


def encode(text: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    return encode_message(NewMessage(json=msgspec.Raw(text.encode())), time_ms=0, producer=None, limits=limits)


def arrays(depth: int) -> str:
    return "[" * depth + "]" * depth


def objects(depth: int) -> str:
    return '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


def spaced(depth: int) -> str:
    return "[\r\n" * depth + "]" * depth


def beside_text(depth: int) -> str:
    """Brackets in strings count for nothing, whatever is escaped around them."""
    return r'["]}]}\"]}\\", ' * (depth - 1) + r'{"\\\"[":"\\"}' + "]" * (depth - 1)


SHAPES: list[Callable[[int], str]] = [arrays, objects, spaced, beside_text]


@pytest.mark.parametrize("shape", SHAPES)
def test_json_is_taken_up_to_the_limit_and_not_beyond(shape: Callable[[int], str]) -> None:
    assert msgspec.json.decode(payload_bytes(decode_message(encode(shape(MOST))))) == json.loads(shape(MOST))
    for depth in (MOST + 1, FAR):
        with pytest.raises(TooLargeError) as caught:
            encode(shape(depth), Limits(message_bytes_max=1 << 30))
        assert caught.value.detail == {"limit": "json_depth_max"}


@pytest.mark.parametrize("value", ["[" * 1000, '"\\"' + "{" * 1000 + '"', [arrays(1)] * 1000])
def test_many_brackets_are_not_depth(value: object) -> None:
    assert payload_bytes(decode_message(encode(json.dumps(value)))) == json.dumps(value).encode()


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


TEXTS = st.text(alphabet='[]{}"\\x', max_size=5)
VALUES = st.recursive(
    TEXTS | st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)


@given(VALUES, st.integers(0, 5))
def test_the_depth_is_the_one_that_a_reader_counts(value: Any, most: int) -> None:
    text = json.dumps(value)
    if depth_of(value) <= most:
        encode(text, Limits(json_depth_max=most))
    else:
        with pytest.raises(TooLargeError):
            encode(text, Limits(json_depth_max=most))


def test_a_client_refuses_it_before_it_is_sent() -> None:
    assert encoded_bytes(NewMessage(json=msgspec.Raw(arrays(MOST).encode())), DEFAULT_LIMITS) > 2 * MOST
    with pytest.raises(TooLargeError):
        encoded_bytes(NewMessage(json=msgspec.Raw(arrays(MOST + 1).encode())), DEFAULT_LIMITS)


def test_what_the_stack_cannot_hold_is_a_typed_error_wherever_it_is_read() -> None:
    deep = arrays(FAR).encode()
    encoded = b'{"json":' + deep + b"}"
    with pytest.raises(TooLargeError):
        decode_message(encoded)
    with pytest.raises(TooLargeError):
        decode_messages(encoded)
    frame = ReceivedMessages(stream="a", epoch=1, first=1, hash="", messages=[msgspec.Raw(encoded)])
    with pytest.raises(TooLargeError) as caught:
        frame.decoded()
    assert caught.value.detail == {"limit": "json_depth_max", "stream": "a"}
    with pytest.raises(TooLargeError) as caught:
        decode_server(messages_frame(messages_prefix('ä"\\b', 1), 1, "", encoded))
    assert caught.value.detail == {"limit": "json_depth_max", "stream": 'ä"\\b'}
    with pytest.raises(TooLargeError):
        assert Received(1, 1, Message(json=msgspec.Raw(deep))).json


@pytest.mark.parametrize("data", [b"[" * FAR, b'{"type":"messages","epoch":' + b"[" * FAR, b'{"x":' + b"[" * FAR])
def test_a_deep_frame_that_names_no_stream_is_none(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_server(data)


def test_an_unreadable_message_ends_its_own_subscription_and_no_other() -> None:
    session = ClientSession(DEFAULT_LIMITS, Random(1))
    session.start()
    session.opened(0.0)
    session.follow("deep", "1:0")
    session.follow("other", "1:0")
    poison = b'{"json":' + arrays(FAR).encode() + b"}"
    frame = messages_frame(messages_prefix("deep", 1), 1, "", poison)
    failed, left = session.receive(frame, 1.0)
    assert isinstance(failed, out.SubscriptionFailed)
    assert (failed.stream, failed.error.code) == ("deep", "too_large")
    assert left == out.Send(Unsubscribe(stream="deep"))
    assert session.receive(frame, 2.0) == []  # one that was on the way already
    (told,) = session.receive(messages_frame(messages_prefix("other", 1), 1, "", b'{"text":"x"}'), 3.0)
    assert isinstance(told, out.MessagesReceived)
    session.closed(4.0, 1006)
    session.tick(100.0)
    (again,) = session.opened(100.0)
    assert isinstance(again, out.Send)
    assert isinstance(again.frame, Subscribe)
    assert again.frame.stream == "other"
