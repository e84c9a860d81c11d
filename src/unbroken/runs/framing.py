"""Turns the bytes that a program writes into messages: text where it is UTF-8, data where it is not.

`Outbox` feeds it what was read and flushes it when the bytes grow old. It never loses, adds or reorders a byte: the
payloads of one kind, joined, are what the program wrote; and it never does I/O.
"""

from __future__ import annotations

from unbroken.messages import NewMessage

__all__ = ["Framer", "Lines"]

SEQUENCE_BYTES_MAX = 4
"""A character has at most this many bytes in UTF-8."""


class Framer:
    """Cuts output into messages of at most `bytes_max`, after a line feed where there is one.

    Bytes of another kind than the pending ones complete those first, so messages keep the order of reading. The first
    bytes of a character whose rest is still to come are held back, at most three for each kind.
    """

    def __init__(self, bytes_max: int) -> None:
        assert bytes_max >= SEQUENCE_BYTES_MAX
        self._bytes_max = bytes_max
        self._kind = ""
        self._pending = bytearray()
        self._held: dict[str, bytes] = {}

    @property
    def pending(self) -> bool:
        """Whether `flush` would give anything."""
        return bool(self._pending)

    def feed(self, kind: str, data: bytes) -> list[NewMessage]:
        """Take `data` of `kind`; gives what is complete by now."""
        messages = self.flush() if kind != self._kind else []
        self._kind = kind
        self._pending += self._held.pop(kind, b"")
        self._pending += data
        while len(self._pending) >= self._bytes_max:
            size = _cut(self._pending, self._bytes_max)
            messages += _messages(kind, bytes(self._pending[:size]))
            del self._pending[:size]
        return messages

    def flush(self) -> list[NewMessage]:
        """Everything pending but for the beginning of an unfinished character."""
        size = len(self._pending) - _unfinished(self._pending)
        messages = _messages(self._kind, bytes(self._pending[:size]))
        if size < len(self._pending):
            self._held[self._kind] = bytes(self._pending[size:])
        self._pending.clear()
        return messages

    def finish(self) -> list[NewMessage]:
        """Everything: what is still unfinished now stays so."""
        messages = self.flush()
        for kind, tail in sorted(self._held.items()):
            messages += _messages(kind, tail)
        self._held.clear()
        return messages


class Lines:
    """Cuts input into its lines, each with its line feed; a line longer than `bytes_max` into several pieces."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take `data`; gives the lines that are complete by now."""
        self._pending += data
        pieces: list[bytes] = []
        start = 0
        while True:
            end = self._pending.find(b"\n", start, start + self._bytes_max) + 1
            if not end and len(self._pending) - start >= self._bytes_max:
                end = start + _cut(self._pending[start : start + self._bytes_max], self._bytes_max)
            if not end:
                del self._pending[:start]
                return pieces
            pieces.append(bytes(self._pending[start:end]))
            start = end

    def finish(self) -> list[bytes]:
        """The last line, which has no line feed, if there is one."""
        rest = bytes(self._pending)
        self._pending.clear()
        return [rest] if rest else []


def _cut(buffer: bytearray, bytes_max: int) -> int:
    """How many of the first `bytes_max` bytes to take: up to the last line feed, else up to a character's end."""
    line = buffer.rfind(b"\n", 0, bytes_max) + 1
    return line or bytes_max - _unfinished(buffer[:bytes_max])


def _unfinished(buffer: bytes | bytearray) -> int:
    """How many bytes at the end of `buffer` begin a UTF-8 sequence that may still be completed (0 to 3)."""
    for count in range(1, min(SEQUENCE_BYTES_MAX, len(buffer) + 1)):
        lead = buffer[-count]
        if lead & 0xC0 == 0x80:  # a continuation byte: its lead is further to the left
            continue
        length = 4 if 0xF0 <= lead <= 0xF4 else 3 if 0xE0 <= lead < 0xF0 else 2 if 0xC2 <= lead < 0xE0 else 1
        return count if count < length else 0
    return 0


def _messages(kind: str, piece: bytes) -> list[NewMessage]:
    """`piece` as messages: one text when it is UTF-8, else runs of valid and of invalid lines."""
    if not piece:
        return []
    text = _decode(piece)
    if text is not None:
        return [NewMessage(kind=kind, text=text)]
    if b"\0" in piece:  # not a text with a bad line in it: binary
        return [NewMessage(kind=kind, data=piece)]
    messages: list[NewMessage] = []
    run, run_valid = bytearray(), False
    for line in piece.splitlines(keepends=True):
        valid = _decode(line) is not None
        if run and valid != run_valid:
            messages.append(_one(kind, bytes(run)))
            run.clear()
        run += line
        run_valid = valid
    messages.append(_one(kind, bytes(run)))
    return messages


def _one(kind: str, piece: bytes) -> NewMessage:
    text = _decode(piece)
    return NewMessage(kind=kind, data=piece) if text is None else NewMessage(kind=kind, text=text)


def _decode(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None
