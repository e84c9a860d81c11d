"""The SSE framing and the cache cursor of the Durable Streams face."""

from __future__ import annotations

import random
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, encode_message
from unbroken.protocol.sse import SseParser
from unbroken.server.durable_streams.content import Content
from unbroken.server.durable_streams.cursors import cache_cursor
from unbroken.server.durable_streams.sse import Control, control_event, data_event

DAY_MS = 86_400_000
START_MS = 1_728_432_000_000


def body_of(message: NewMessage) -> bytes:
    return encode_message(message, time_ms=0, producer=None, limits=DEFAULT_LIMITS)


def test_a_line_has_no_space_behind_its_colon() -> None:
    event = data_event(Content.TEXT, body_of(NewMessage(text="one\ntwo")), "x")
    assert event == b"id: x\nevent: data\ndata:one\ndata:two\n\n"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_every_kind_of_line_end_begins_a_new_field(end: str) -> None:
    event = data_event(Content.TEXT, body_of(NewMessage(text=f"a{end}{end}event: control{end}b")), "x")
    assert event == b"id: x\nevent: data\ndata:a\ndata:\ndata:event: control\ndata:b\n\n"


def test_a_leading_space_survives_a_receiver_that_drops_one() -> None:
    events = SseParser().feed(data_event(Content.TEXT, body_of(NewMessage(text="  two\n one")), "x"))
    assert [event.data for event in events] == ["  two\n one"]


@given(st.text())
def test_a_text_arrives_with_its_line_ends_as_line_feeds(text: str) -> None:
    (event,) = SseParser().feed(data_event(Content.TEXT, body_of(NewMessage(text=text)), "x"))
    assert event.data == text.replace("\r\n", "\n").replace("\r", "\n")
    assert (event.event, event.id) == ("data", "x")


@given(st.binary(min_size=1))
def test_bytes_arrive_as_base64(data: bytes) -> None:
    (event,) = SseParser().feed(data_event(Content.BYTES, body_of(NewMessage(data=data)), "x"))
    assert b64decode(event.data, validate=True) == data
    assert len(event.data) % 4 == 0


def test_a_control_event_says_only_what_is_so() -> None:
    assert control_event(Control("x", "5")) == b'event: control\ndata:{"streamNextOffset":"x","streamCursor":"5"}\n\n'
    assert control_event(Control("x", up_to_date=True, stream_closed=True)) == (
        b'event: control\ndata:{"streamNextOffset":"x","upToDate":true,"streamClosed":true}\n\n'
    )


def test_a_cursor_counts_intervals_of_20_seconds() -> None:
    chance = random.Random(1)
    assert cache_cursor(START_MS, None, chance) == "0"
    assert cache_cursor(START_MS + DAY_MS, None, chance) == str(86_400 // 20)
    assert cache_cursor(START_MS + DAY_MS, "17", chance) == str(86_400 // 20)
    assert cache_cursor(0, None, chance) == "0"


@pytest.mark.parametrize("given_cursor", ["", "x", "-1", "1\n", " 1", "9" * 16, "\u0661"])
def test_a_cursor_that_is_no_number_counts_as_none(given_cursor: str) -> None:
    assert cache_cursor(START_MS, given_cursor, random.Random(1)) == "0"


@given(st.integers(min_value=0, max_value=10**15 - 1), st.randoms(use_true_random=False))
def test_a_cursor_is_always_greater_than_the_one_given(given_cursor: int, chance: random.Random) -> None:
    answer = int(cache_cursor(START_MS + DAY_MS, str(given_cursor), chance))
    assert answer > given_cursor
    assert answer - max(given_cursor, 86_400 // 20) <= 180
