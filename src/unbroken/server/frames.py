"""The frames of an open WebSocket: `websockets`' sans-I/O protocol, with a short way for what nearly all that arrives is.

See `docs/adr/0015-whole-text-frames.md`.
"""

from __future__ import annotations

import logging
import sys
from types import GeneratorType
from typing import Final, cast

from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # its own, in C if possible
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

__all__ = ["Frames", "between_frames"]

QUIET: Final = logging.getLogger("unbroken.websocket")
"""For the library's parser, which would log every frame: contents, and tokens in `auth` frames."""
QUIET.setLevel(logging.INFO)
TEXT: Final = Opcode.TEXT
WHOLE_TEXT: Final = 0x81
"""The first byte of a text frame that is a message by itself, without extensions (RFC 6455, section 5.2)."""
MASKED: Final = 0x80
LENGTH_IN_TWO_BYTES: Final = 126


class Frames(Protocol):
    """The server's side of a WebSocket whose handshake is done, without extensions.

    It differs from its base in time alone: whole text frames below 64 KiB at the beginning of what is received become
    events without the parser, while that waits for a frame to begin. All else is the parser's: other frames and what comes
    behind them, parts of frames, fragments, what breaks the protocol, and everything once a side has said its close.
    """

    def __init__(self, max_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__(Side.SERVER, state=State.OPEN, max_size=max_size, logger=QUIET)
        del self.id  # for logs, which are quiet
        bounds = max_size if isinstance(max_size, tuple) else (max_size,)
        self.frame_bytes_max = min((bound for bound in bounds if bound is not None), default=sys.maxsize)

    def receive_data(self, data: bytes | bytearray) -> None:
        """As its base does: what was received is in `events_received` afterwards, in its order."""
        if self.current_size is None and between_frames(self):
            data = self._whole_texts(data)
        if data:
            super().receive_data(data)

    def _whole_texts(self, data: bytes | bytearray) -> bytes | bytearray:
        """Take the whole text frames at the beginning of `data`; gives what is left."""
        start, size, events, most = 0, len(data), self.events, self.frame_bytes_max
        while start + 6 <= size and data[start] == WHOLE_TEXT:
            length, begin = data[start + 1] - MASKED, start + 6
            if length == LENGTH_IN_TWO_BYTES:
                length, begin = int.from_bytes(data[start + 2 : start + 4]), start + 8
            elif not 0 <= length < LENGTH_IN_TWO_BYTES:
                break
            end = begin + length
            if length > most or end > size:
                break
            events.append(Frame(TEXT, apply_mask(data[begin:end], data[begin - 4 : begin])))
            start = end
        return data[start:] if start else data


def between_frames(conn: Protocol) -> bool:
    """Whether the parser of `conn`, which is open, waits for a frame to begin: it has not even part of a header."""
    waiting = cast("GeneratorType[None, None, None]", conn.parser)
    while isinstance(inner := waiting.gi_yieldfrom, GeneratorType):
        waiting = inner
    return waiting.gi_code is _WAITING and not conn.reader.buffer and conn.state is State.OPEN


_WAITING: Final = StreamReader.at_eof.__code__
