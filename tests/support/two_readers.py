"""Owns the comparison of our reader of WebSocket frames with the library's: both are given the same, and must find the same.

Its own tests and fuzzing use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

from unbroken.server.frames import Frames

__all__ = ["SIZES_MAX", "read_by_both"]

SIZES_MAX: tuple[int | tuple[int | None, int | None] | None, ...] = (1 << 20, 300, (None, 40), (300, 40), (300, None))


def read_by_both(
    pieces: Sequence[bytes], max_size: int | tuple[int | None, int | None] | None, closing: int
) -> list[Frame]:
    """Both read `pieces`, and before number `closing` of them say close; gives the frames. Fails where they differ."""
    ours, theirs = Frames(max_size), Protocol(Side.SERVER, state=State.OPEN, max_size=max_size)
    found: list[Frame] = []
    for number, piece in enumerate(pieces):
        for conn in (ours, theirs):
            if number == closing and conn.state is State.OPEN:
                conn.send_close(1001)
            conn.receive_data(piece)
        frames = cast("list[Frame]", ours.events_received())
        assert _told(frames) == _told(cast("list[Frame]", theirs.events_received()))
        assert _state(ours) == _state(theirs)
        found += frames
    return found


def _told(frames: Sequence[Frame]) -> list[tuple[Any, ...]]:
    return [
        (frame.opcode, bytes(frame.data), frame.fin, frame.rsv1, frame.rsv2, frame.rsv3)  # of whatever type of bytes
        for frame in frames
    ]


def _state(conn: Protocol) -> tuple[Any, ...]:
    return (
        conn.state,
        conn.current_size,
        bytes(conn.reader.buffer),
        conn.data_to_send(),
        conn.close_rcvd,
        conn.close_sent,
        repr(conn.parser_exc),
    )
