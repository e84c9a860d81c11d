"""What a run has written and the server does not have yet: a bounded memory queue in front of a bounded file.

The thread that reads the program feeds it, `Delivery` takes from it in order; both may call at any time. It never waits
for the network, and what it cannot hold it counts and says so in the stream, with a message of kind `gap`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from unbroken.client.spill import SpillAppend, SpillFile, SpillHeader, SpillTarget
from unbroken.errors import CorruptError
from unbroken.limits import Limits
from unbroken.messages import NewMessage, StreamState
from unbroken.protocol.frames import CloseSpec
from unbroken.runs.framing import Framer

__all__ = ["Outbox"]

RESERVE_BYTES: Final = 8192
"""Kept free in the file for the end of the stream and for changes of the target."""
UNKNOWN_SEQ: Final = 2**50
"""Where a damaged file no longer tells the next number: one that the server cannot have, so that it asks for a new stream."""

_append_decoder = msgspec.json.Decoder(SpillAppend)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An encoded append in memory; `end` is the position behind it in the file, 0 when it is not there."""

    seq: int
    payload: bytes
    end: int


class Outbox:
    """Appends of one run, each decided once: number and messages never change, so a repeat has no second effect.

    While nothing is saved, everything unacknowledged is in memory. Once it spills, everything unacknowledged is in the
    file, and memory holds its beginning. The file is bounded by `spill_bytes_max`; when it is full the newest is
    dropped.
    """

    def __init__(self, path: Path, header: SpillHeader, limits: Limits, *, wake: Callable[[], None]) -> None:
        self.path = path
        self.header = header
        self.target = SpillTarget(stream=header.stream, base=0)
        self.dropped_bytes = 0
        self.trouble: OSError | None = None
        """Why the file could not be written, when that was why something was dropped."""
        self._limits = limits
        self._memory_bytes_max = min(limits.run_memory_bytes_max, (limits.spill_bytes_max - RESERVE_BYTES) // 2)
        self._wake = wake
        self._lock = threading.Lock()
        self._framer = Framer(limits.run_message_bytes_max)
        self._open: list[NewMessage] = []
        self._open_bytes = 0
        self._gap_bytes = 0
        self._next = 0
        self._memory: deque[_Waiting] = deque()
        self._memory_bytes = 0
        self._file: SpillFile | None = None
        self._position = 0  # behind the last record of the file that is, or was, in memory
        self._consumed = 0  # behind the last record of the file that is acknowledged
        self._last: bytes | None = None  # the stream's end, where the file had no room for it
        self._finished = False

    @classmethod
    def recover(cls, path: Path, limits: Limits) -> Outbox:
        """The outbox of a run that is gone, from its file; `CorruptError` when the file is none.

        A run that did not come to say how it ended is ended as interrupted.
        """
        file = SpillFile.open(path)
        header, target, last, closed, position = None, None, None, False, 0
        for record, end in file.records():
            match record:
                case SpillHeader():
                    header, position = header or record, end
                case SpillTarget():
                    target = record
                case SpillAppend(seq=seq, close=close):
                    last, closed = seq, closed or close is not None
        if header is None:
            file.close()
            raise CorruptError(f"{path.name} has lost its header")
        outbox = cls(path, header, limits, wake=lambda: None)
        outbox._file, outbox._position, outbox._consumed = file, position, position
        outbox.target = target or outbox.target
        outbox._next = UNKNOWN_SEQ if last is None else last + 1
        outbox._finished = True
        if last is None and not file.lost_bytes:  # nothing waits; how the run ended, its lease will tell
            outbox._forget_file()
        elif not closed:
            messages = [_gap(file.lost_bytes)] if file.lost_bytes else []
            outbox._last = msgspec.json.encode(SpillAppend(seq=outbox._next, messages=messages, close=_lost()))
        return outbox

    # --- the program's side ---------------------------------------------------------------------------------------------

    def output(self, kind: str, data: bytes) -> None:
        """Take what the program wrote to `kind` (stdout, stderr)."""
        with self._lock:
            self._take(self._framer.feed(kind, data))

    def flush(self) -> None:
        """Make messages of whatever waits for the end of its line."""
        with self._lock:
            self._take(self._framer.flush())

    def finish(self, state: StreamState, reason: bytes) -> None:
        """The program has ended: nothing follows but the end of the stream, which always finds room."""
        with self._lock:
            if self._finished:
                return
            self._take(self._framer.finish())
            if self._file is not None:  # the end alone always finds room there
                self._seal()
            self._finished = True
            self._seal(close=CloseSpec(state=state.value, reason=msgspec.Raw(reason)))
        self._wake()

    @property
    def partial(self) -> bool:
        """Whether a flush would give something."""
        return self._framer.pending

    # --- the server's side ----------------------------------------------------------------------------------------------

    def peek(self) -> SpillAppend | None:
        """The oldest append that is not acknowledged, always the same until `done`; None when there is none."""
        with self._lock:
            if not self._memory and not self._load() and self._open:
                self._seal()
                self._load()
            return _append_decoder.decode(self._memory[0].payload) if self._memory else None

    def done(self, seq: int) -> None:
        """The append that `peek` gave is durable at the server."""
        with self._lock:
            first = self._memory.popleft()
            assert first.seq == seq
            self._memory_bytes -= len(first.payload)
            self._consumed = max(self._consumed, first.end)
            if not self._memory:
                self._load()

    def give_up(self, seq: int) -> None:
        """The server will never take this append: replace its messages by a count of what they held."""
        with self._lock:
            first = self._memory.popleft()
            assert first.seq == seq
            append = _append_decoder.decode(first.payload)
            dropped = sum(map(_payload_bytes, append.messages))
            self.dropped_bytes += dropped
            payload = msgspec.json.encode(SpillAppend(seq=seq, messages=[_gap(dropped)], close=append.close))
            self._memory_bytes += len(payload) - len(first.payload)
            self._memory.appendleft(_Waiting(seq, payload, first.end))

    def retarget(self, target: SpillTarget) -> None:
        """From now on everything goes to `target`; remembered in the file when there is one."""
        with self._lock:
            self.target = target
            if self._file is None:
                return
            at_end = self._position == self._file.size
            try:
                self._file.add(target)
            except OSError as error:
                self.trouble = error
            if at_end:
                self._position = self._file.size

    def save(self) -> bool:
        """Put everything that is not acknowledged into the file; False when it cannot hold it all."""
        with self._lock:
            if not self._finished:
                self._seal()
            return self._spill()

    @property
    def next_seq(self) -> int:
        """The number that the oldest unacknowledged append has, or the next one will have."""
        with self._lock:
            return self._memory[0].seq if self._memory or self._load() else self._next

    @property
    def delivered(self) -> bool:
        """Whether the stream's end, and so everything before it, is acknowledged."""
        with self._lock:
            return self._finished and not self._memory and self._file is None and self._last is None

    @property
    def waiting_bytes(self) -> int:
        """How much is not acknowledged yet, about."""
        with self._lock:
            filed = 0 if self._file is None else self._file.size - self._position
            return self._memory_bytes + self._open_bytes + filed

    def close(self) -> None:
        """Let go of the file, which stays; after `save` nothing is lost."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    # --- inside the lock ------------------------------------------------------------------------------------------------

    def _take(self, messages: list[NewMessage]) -> None:
        if not messages:
            return
        for message in messages:
            self._open.append(message)
            self._open_bytes += _payload_bytes(message)
            if (
                self._open_bytes >= self._limits.run_append_bytes_max
                or len(self._open) >= self._limits.append_messages_max - 1
            ):
                self._seal()
        self._wake()

    def _seal(self, close: CloseSpec | None = None) -> None:
        """Decide the next append from what is open; dropped and counted when there is no room for it."""
        if not self._open and close is None:
            return
        messages, size = self._open, self._open_bytes
        self._open, self._open_bytes = [], 0
        if self._gap_bytes:
            messages = [_gap(self._gap_bytes), *messages]
        payload = msgspec.json.encode(SpillAppend(seq=self._next, messages=messages, close=close))
        if self._store(payload, last=close is not None):
            self._next += 1
            self._gap_bytes = 0
        else:
            self._gap_bytes += size
            self.dropped_bytes += size

    def _store(self, payload: bytes, *, last: bool) -> bool:
        """Put an encoded append at the end of the queue, in memory, in the file, or in both.

        Either there is no file, or the file holds everything that waits and memory holds its beginning.
        """
        room = last or self._memory_bytes + len(payload) <= self._memory_bytes_max
        if self._file is None and not room:
            self._spill(even_empty=True)
        if self._file is None:
            if room:
                self._remember(payload, 0)
            return room
        whole = self._position == self._file.size
        end = self._write(payload, last=last)
        if end and whole and room:
            self._remember(payload, end)
            self._position = end
        if not end and whole and room:
            self._forget_file()
            self._remember(payload, 0)
        elif not end and last:
            self._last = payload
        return bool(end) or (whole and room) or last

    def _remember(self, payload: bytes, end: int) -> None:
        self._bring(payload, self._next, end)

    def _write(self, payload: bytes, *, last: bool) -> int:
        """Add to the file and give the position behind, or 0 when it is full or cannot be written."""
        assert self._file is not None
        bytes_max = self._limits.spill_bytes_max - (0 if last else RESERVE_BYTES)
        if self._file.size + len(payload) > bytes_max and self._consumed > bytes_max // 2:
            self._compact()
        if self._file.size + len(payload) > bytes_max:
            return 0
        try:
            return self._file.add(payload)
        except OSError as error:
            self.trouble = error
            return 0

    def _compact(self) -> None:
        """Drop the acknowledged part of the file."""
        assert self._file is not None
        before = self._consumed
        try:
            self._file = self._file.rest(before, self._head())
        except OSError as error:
            self.trouble = error
            return
        moved = self._file.first - before
        self._consumed += moved
        self._position += moved
        self._memory = deque(_Waiting(w.seq, w.payload, w.end and w.end + moved) for w in self._memory)

    def _spill(self, *, even_empty: bool = False) -> bool:
        """Write everything that waits to a new file, unless there is one."""
        if self._file is not None:
            return self._last is None
        if not self._memory and not even_empty:
            return True
        try:
            self._file = SpillFile.create(self.path, self._head())
            self._memory = deque(_Waiting(w.seq, w.payload, self._file.add(w.payload)) for w in self._memory)
        except OSError as error:
            self.trouble = error
            self._forget_file()
            return False
        self._consumed, self._position = self._file.first, self._file.size
        return True

    def _forget_file(self) -> None:
        """Go back to memory alone, which holds all that the file does."""
        if self._file is not None:
            self._file.remove()
            self._file = None
        self._position = self._consumed = 0
        self._memory = deque(_Waiting(w.seq, w.payload, 0) for w in self._memory)

    def _load(self) -> bool:
        """Bring the next append that is not in memory into it."""
        while self._file is not None and self._position < self._file.size:
            found = self._file.read(self._position)
            if found is None:
                self._lose_rest()
                break
            record, self._position = found
            if isinstance(record, SpillAppend) and record.seq >= self.target.base:
                self._bring(msgspec.json.encode(record), record.seq, self._position)
                return True
        if self._last is not None:
            payload, self._last = self._last, None
            self._bring(payload, _append_decoder.decode(payload).seq, 0)
        elif self._file is not None and not self._memory:
            self._forget_file()  # all of it is acknowledged
        return bool(self._memory)

    def _bring(self, payload: bytes, seq: int, end: int) -> None:
        self._memory.append(_Waiting(seq, payload, end))
        self._memory_bytes += len(payload)

    def _lose_rest(self) -> None:
        """The file is damaged: what follows is lost, which is counted, and the stream still ends."""
        assert self._file is not None
        lost = self._file.size - self._position
        self._file.truncate(self._position)
        self._gap_bytes += lost
        self.dropped_bytes += lost
        if self._finished and self._last is None:
            append = SpillAppend(seq=self._next, messages=[_gap(self._gap_bytes)], close=_lost())
            self._last = msgspec.json.encode(append)
            self._next += 1

    def _head(self) -> list[SpillHeader | SpillAppend | SpillTarget]:
        return [self.header, self.target]


def _gap(dropped: int) -> NewMessage:
    return NewMessage(kind="gap", json=msgspec.Raw(b'{"dropped_bytes":%d}' % dropped))


def _lost() -> CloseSpec:
    """How the stream of a program ends whose end nobody can tell."""
    reason = msgspec.Raw(b'{"error":"the program\'s runner was lost"}')
    return CloseSpec(state=StreamState.INTERRUPTED.value, reason=reason)


def _payload_bytes(message: NewMessage) -> int:
    if isinstance(message.text, str):
        return len(message.text.encode())
    return len(message.data) if isinstance(message.data, bytes) else 0
