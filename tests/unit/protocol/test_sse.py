"""SSE as it is written, and parsed by the WHATWG algorithm however it is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import InvalidError, TooLargeError
from unbroken.limits import Limits
from unbroken.protocol import sse
from unbroken.protocol.sse import ServerEvent, SseParser


def parse(data: bytes, *, cut: int = 0) -> list[ServerEvent]:
    parser = SseParser()
    if not cut:
        return parser.feed(data)
    return [found for at in range(0, len(data), cut) for found in parser.feed(data[at : at + cut])]


def test_the_pieces_of_a_stream_are_what_the_protocol_says() -> None:
    assert sse.retry(1000) == b"retry: 1000\n\n"
    assert sse.comment("hi") == b": hi\n\n"
    assert sse.HEARTBEAT == b": heartbeat\n\n"
    assert sse.event("state", b'{"a":1}') == b'event: state\ndata: {"a":1}\n\n'
    assert sse.message_event(7, 3, b'{"text":"x"}') == b'id: 7:3\nevent: message\ndata: {"seq":3,"text":"x"}\n\n'
    assert sse.message_event(7, 3, b"{}") == b'id: 7:3\nevent: message\ndata: {"seq":3}\n\n'
    with pytest.raises(InvalidError):
        sse.comment("a\nevent: forged")


def test_data_of_several_lines_cannot_forge_an_event() -> None:
    (event,) = parse(sse.event("state", b"one\r\ndata: two\nid: 9:9\rfour"))
    assert event == ServerEvent("state", "one\ndata: two\nid: 9:9\nfour", "")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\n", [ServerEvent("message", "a", "")]),
        (b"\xef\xbb\xbfdata: a\n\n", [ServerEvent("message", "a", "")]),
        (b"data:a\r\rdata:  b\r\n\r\n", [ServerEvent("message", "a", ""), ServerEvent("message", " b", "")]),
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerEvent("message", "YHOO\n+2\n10", "")]),
        (b": c\n\ndata: 1\nid: 1\n\ndata: 2\nid\n\ndata: 3\n\n", [("1", "1"), ("2", ""), ("3", "")]),
        (b"data\n\ndata\ndata\n\ndata:", [ServerEvent("message", "", ""), ServerEvent("message", "\n", "")]),
        (b"event: x\n\ndata: y\n\n", [ServerEvent("message", "y", "")]),
        (b"id: 7\n\ndata: y\n\n", [ServerEvent("message", "y", "7")]),
        (b"id: 1\ndata: a\n\nid: b\0d\ndata: b\n\n", [("a", "1"), ("b", "1")]),
        (b"nonsense: 1\ndata: a\n\n", [ServerEvent("message", "a", "")]),
        (b"data: a\r\ndata: b\r\n\r\n", [ServerEvent("message", "a\nb", "")]),
        (b"data: cut off", []),
        (b"data: \xff\n\n", [ServerEvent("message", "\ufffd", "")]),
    ],
    ids=str,
)
def test_the_algorithm(data: bytes, expected: list[ServerEvent | tuple[str, str]]) -> None:
    wanted = [ServerEvent("message", *each) if isinstance(each, tuple) else each for each in expected]
    for cut in (0, 1, 2, 3):
        assert parse(data, cut=cut) == wanted


def test_retry_takes_digits_only_and_the_last_id_is_kept() -> None:
    parser = SseParser()
    parser.feed(b"retry: 1500\nretry: 1x\nretry: -1\nid: 7:9\n\n")
    assert (parser.retry_milliseconds, parser.last_event_id) == (1500, "7:9")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6), st.integers(1, 40))
def test_any_messages_come_back_however_they_are_cut(texts: list[str], cut: int) -> None:
    encoded = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts]
    data = sse.retry(1) + b"".join(
        sse.HEARTBEAT + sse.message_event(7, seq, message) for seq, message in enumerate(encoded, 1)
    )
    events = parse(data, cut=cut)
    assert [event.id for event in events] == [f"7:{seq}" for seq in range(1, len(texts) + 1)]
    assert [json.loads(event.data) for event in events] == [
        {"seq": seq, "text": text} for seq, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 101, b"data: xxxxxxxxxx\n" * 20])
def test_an_event_without_end_costs_bounded_memory(data: bytes) -> None:
    parser = SseParser(Limits(frame_bytes_max=100))
    with pytest.raises(TooLargeError):
        parser.feed(data)
