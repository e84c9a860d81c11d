"""Frames of a WebSocket: the short way for whole text frames finds what the library's parser would, and is used."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tests.fuzz.samples import WIRE_FRAMES
from tests.fuzz.shapes import pieces
from tests.support.two_readers import SIZES_MAX, read_by_both
from unbroken.server import frames
from unbroken.server.frames import Frames

TEXT, PING, CLOSE = WIRE_FRAMES["text"], WIRE_FRAMES["ping"], WIRE_FRAMES["close"]


@given(
    pieces(st.lists(st.sampled_from(sorted(WIRE_FRAMES.values())), max_size=8).map(b"".join)),
    st.sampled_from(SIZES_MAX),
    st.integers(0, 12),
)
def test_any_frames_cut_anywhere_are_read_as_the_library_reads_them(
    received: Sequence[bytes], max_size: int | tuple[int | None, int | None] | None, closing: int
) -> None:
    read_by_both(received, max_size, closing)


@pytest.mark.parametrize("name", sorted(WIRE_FRAMES))
def test_each_frame_byte_by_byte_is_read_as_the_library_reads_it(name: str) -> None:
    for before in (b"", TEXT, WIRE_FRAMES["first"], CLOSE):
        sent = before + WIRE_FRAMES[name][:400] + TEXT
        for max_size in SIZES_MAX:
            read_by_both([sent], max_size, -1)
            for at in range(1, min(len(sent), 40)):
                read_by_both([sent[:at], sent[at:]], max_size, -1)


def test_whole_texts_go_round_the_parser_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Opcode] = []
    whole = Frame.parse

    def counted(*args: object, **options: object):  # type: ignore[no-untyped-def]
        frame = yield from whole(*args, **options)  # type: ignore[arg-type]
        parsed.append(frame.opcode)
        return frame

    monkeypatch.setattr(Frame, "parse", counted)
    conn = Frames(1 << 20)
    conn.receive_data(TEXT + WIRE_FRAMES["text of two bytes' length"] + PING + TEXT)
    conn.receive_data(TEXT[:3])
    conn.receive_data(TEXT[3:] + TEXT)
    conn.receive_data(TEXT)
    assert len(conn.events_received()) == 7
    assert parsed == [Opcode.PING, Opcode.TEXT, Opcode.TEXT, Opcode.TEXT]


def test_the_parser_logs_no_contents() -> None:
    assert not Frames(None).debug
    assert not frames.QUIET.isEnabledFor(10)
