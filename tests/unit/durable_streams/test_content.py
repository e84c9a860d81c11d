"""Bodies and messages of the Durable Streams face: nothing is lost or changed on the way in and out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from unbroken.errors import InvalidError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, decode_message, encode_message, join_encoded
from unbroken.server.durable_streams.content import Content, body_messages, page_body

SMALL = 64


def stored(messages: list[NewMessage]) -> bytes:
    """One batch body of `messages`, as the log would make it."""
    return join_encoded(
        [encode_message(message, time_ms=0, producer=None, limits=DEFAULT_LIMITS) for message in messages]
    )


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", Content.JSON),
        ("Application/JSON; charset=utf-8", Content.JSON),
        ("application/json-seq", Content.BYTES),
        ("application/vnd.api+json", Content.BYTES),
        ("text/plain", Content.TEXT),
        ("TEXT/Event", Content.TEXT),
        ("application/octet-stream", Content.BYTES),
    ],
)
def test_the_content_type_decides_the_kind(content_type: str, content: Content) -> None:
    assert Content.of(content_type) is content


@given(st.binary(max_size=300))
def test_bytes_come_back_whatever_they_are(body: bytes) -> None:
    for content in (Content.BYTES, Content.TEXT):
        messages = body_messages(content, body, message_bytes_max=SMALL)
        assert page_body(content, [stored(messages)] if messages else []) == body


@given(st.text(max_size=300))
def test_text_comes_back_whole_also_in_pieces(text: str) -> None:
    messages = body_messages(Content.TEXT, text.encode(), message_bytes_max=SMALL)
    assert page_body(Content.TEXT, [stored([message]) for message in messages]) == text.encode()
    assert [message.continues for message in messages] == [place > 0 for place in range(len(messages))]


@pytest.mark.parametrize("body", [b"\0" * 100_000, "\U0001f600".encode() * 50_000, b"\xff" * 100_000, b'"' * 100_000])
@pytest.mark.parametrize("content", [Content.TEXT, Content.BYTES])
def test_no_piece_is_larger_than_a_message_may_be(body: bytes, content: Content) -> None:
    limits = DEFAULT_LIMITS
    for message in body_messages(content, body, message_bytes_max=limits.message_bytes_max // 16):
        encoded = encode_message(message, time_ms=2**53, producer="p" * 256, limits=limits)
        assert len(encoded) < limits.message_bytes_max // 16 + 1024


@given(st.lists(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_an_array_is_taken_apart_by_exactly_one_level(values: list[object]) -> None:
    body = json.dumps(values, indent=1, ensure_ascii=False).encode()
    messages = body_messages(Content.JSON, body, message_bytes_max=SMALL)
    assert len(messages) == len(values)
    assert json.loads(page_body(Content.JSON, [stored(messages)] if messages else [])) == values


@pytest.mark.parametrize("text", ['{"a": [1, 2]}', "1e400", '"x"', "null", "123456789012345678901234567890.5"])
def test_anything_else_is_one_message_and_keeps_its_writing(text: str) -> None:
    messages = body_messages(Content.JSON, f" {text}\n".encode(), message_bytes_max=SMALL)
    assert page_body(Content.JSON, [stored(messages)]) == f"[{text}]".encode()


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"[1,]", b"NaN", b'{"a":1}}', b"1 2", b'"\xff"', b"\xef\xbb\xbf1", b"'a'", b"[" * 100_000],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidError):
        body_messages(Content.JSON, body, message_bytes_max=SMALL)


def test_messages_of_other_faces_are_json_too() -> None:
    foreign = [NewMessage(text='say "hi"'), NewMessage(data=b"\0\xff"), NewMessage(json=Raw(b'{"a":1}'))]
    assert json.loads(page_body(Content.JSON, [stored(foreign)])) == ['say "hi"', "AP8=", {"a": 1}]


def test_the_kind_is_that_asked_for() -> None:
    body = stored(body_messages(Content.TEXT, b"abc", message_bytes_max=SMALL, kind="fork-prefix"))
    assert decode_message(body).kind == "fork-prefix"
