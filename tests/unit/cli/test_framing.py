"""A program's output as messages: no byte is lost, added or reordered, however it was read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.messages import NewMessage
from unbroken.runs.framing import Framer, Lines

PIECES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode), st.sampled_from([b"\n", b"a\n\xff\n"])),
        st.booleans(),
    ),
    max_size=30,
)


def payload(message: NewMessage) -> bytes:
    if isinstance(message.text, str):
        return message.text.encode()
    assert isinstance(message.data, bytes)
    return message.data


def frame(pieces: list[tuple[str, bytes, bool]], bytes_max: int) -> list[NewMessage]:
    framer = Framer(bytes_max)
    messages = []
    for kind, data, flush in pieces:
        messages += framer.feed(kind, data)
        messages += framer.flush() if flush else []
    return messages + framer.finish()


@given(PIECES, st.integers(4, 64))
def test_the_payloads_of_a_kind_joined_are_what_was_written(pieces: list[tuple[str, bytes, bool]], size: int) -> None:
    messages = frame(pieces, size)
    for kind in ("stdout", "stderr"):
        written = b"".join(data for of, data, _ in pieces if of == kind)
        assert b"".join(payload(message) for message in messages if message.kind == kind) == written
    assert all(0 < len(payload(message)) <= size for message in messages)


@given(st.text(max_size=200), st.integers(1, 9), st.integers(4, 20))
def test_valid_text_stays_text_wherever_it_is_cut(text: str, step: int, size: int) -> None:
    data = text.encode()
    pieces = [("stdout", data[start : start + step], True) for start in range(0, len(data), step)]
    assert "".join(str(message.text) for message in frame(pieces, size)) == text


def test_the_order_of_reading_is_kept_between_the_two_outputs() -> None:
    messages = frame([("stdout", b"a", False), ("stderr", b"b", False), ("stdout", b"c", False)], 100)
    assert [(message.kind, payload(message)) for message in messages] == [
        ("stdout", b"a"),
        ("stderr", b"b"),
        ("stdout", b"c"),
    ]


def test_a_long_output_is_cut_behind_a_line_feed() -> None:
    framer = Framer(10)
    assert [payload(message) for message in framer.feed("stdout", b"one\ntwo\nthree")] == [b"one\ntwo\n"]
    assert [payload(message) for message in framer.flush()] == [b"three"]


def test_an_endless_line_is_cut_at_the_limit() -> None:
    framer = Framer(8)
    assert [payload(message) for message in framer.feed("stdout", b"x" * 20)] == [b"x" * 8, b"x" * 8]


def test_invalid_bytes_become_data_and_the_lines_around_them_text() -> None:
    messages = frame([("stdout", b"good\nb\xffd\ngood again\n", False)], 100)
    assert [(message.text, message.data) for message in messages] == [
        ("good\n", messages[0].data),
        (messages[1].text, b"b\xffd\n"),
        ("good again\n", messages[2].data),
    ]


def test_binary_output_is_one_piece_of_data() -> None:
    messages = frame([("stdout", b"\0\xff\n" * 20, False)], 100)
    assert [payload(message) for message in messages] == [b"\0\xff\n" * 20]
    assert isinstance(messages[0].data, bytes)


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_an_unfinished_character_waits_for_its_rest(character: str) -> None:
    data = character.encode()
    framer = Framer(100)
    framer.feed("stdout", data[:-1])
    assert framer.flush() == []
    assert framer.feed("stderr", b"!") == []
    framer.flush()
    framer.feed("stdout", data[-1:])
    assert [message.text for message in framer.flush()] == [character]


@given(st.lists(st.one_of(st.binary(max_size=30), st.just(b"\n")), max_size=20), st.integers(4, 30))
def test_lines_joined_are_the_input(pieces: list[bytes], size: int) -> None:
    lines = Lines(size)
    found = [line for piece in pieces for line in lines.feed(piece)] + lines.finish()
    assert b"".join(found) == b"".join(pieces)
    assert all(b"\n" not in line[:-1] and 0 < len(line) <= size for line in found)
