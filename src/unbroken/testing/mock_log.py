"""The streams of a `MockWebSocketServer`: a log in memory with the rules that a client can notice.

The mock server alone uses it; a test reads it as the truth against which a client is judged. It never survives its
process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from unbroken.clock import Clock
from unbroken.errors import (
    ConflictError,
    EndedError,
    EpochMismatchError,
    FencedError,
    InvalidError,
    NotFoundError,
    ProducerGapError,
    TrimmedError,
)
from unbroken.limits import Limits
from unbroken.messages import Cursor, Epoch, Message, NewMessage, Seq, StreamState, decode_message, encode_message
from unbroken.protocol.chain import chain, genesis
from unbroken.protocol.frames import Ack, AppendFrame, CloseSpec, CreateFrame, ProducerSpec, StreamView
from unbroken.protocol.salts import SALT_BYTES, Salts

__all__ = ["MockLog", "MockStream"]


@dataclass(slots=True)
class _ProducerState:
    epoch: int
    next_seq: int
    first: int
    last: int

    def __contains__(self, number: tuple[int, int]) -> bool:
        """Whether the append of this epoch and seq was done."""
        return number[0] == self.epoch and number[1] < self.next_seq


@dataclass(slots=True)
class MockStream:
    """One stream: every encoded message since the first, and the chain in front of and behind each."""

    name: str
    epoch: int
    kind: str = "stream"
    state: StreamState = StreamState.OPEN
    reason: bytes = b"{}"
    first: int = 1
    encoded: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    producers: dict[str, _ProducerState] = field(default_factory=dict)
    lease: ProducerSpec | None = None
    cancel_requested: bool = False
    salts: Salts = field(default_factory=lambda: Salts.fresh(bytes(range(SALT_BYTES))))

    def __post_init__(self) -> None:
        self.heads.append(genesis("local", self.name, self.epoch))

    @property
    def head(self) -> int:
        return len(self.encoded)

    @property
    def messages(self) -> list[Message]:
        """Everything ever appended, in order."""
        return [decode_message(message) for message in self.encoded]

    def view(self) -> StreamView:
        return StreamView(
            stream=self.name,
            epoch=self.epoch,
            state=self.state,
            first=self.first,
            head=self.head,
            cursor=f"{self.epoch}:{self.head}",
            kind=self.kind,
            content_type="application/json",
            created=0,
            updated=0,
            bytes=sum(map(len, self.encoded)),
            reason=msgspec.Raw(self.reason),
            hash=self.heads[-1].hex(),
            producer=None if self.lease is None else self.lease.id,
            cancel_requested=self.cancel_requested,
        )

    def place(self, after: str) -> int:
        """The seq behind which a subscription begins; raises what the server would answer."""
        if after == "start":
            return self.first - 1
        if after == "now":
            return self.head
        if after.startswith("last:") and after[5:].isdecimal():
            return max(self.head - int(after[5:]), self.first - 1)
        cursor = Cursor(Epoch(self.epoch), Seq(int(after))) if after.isdecimal() else Cursor.parse(after)
        if cursor.epoch != self.epoch:
            raise EpochMismatchError(f"{self.name} has epoch {self.epoch}", epoch=self.epoch)
        if cursor.seq > self.head:
            raise InvalidError("the cursor is beyond the head", field="after")
        if cursor.seq < self.first - 1:
            raise TrimmedError(f"{self.name} begins at {self.first}", first=self.first)
        return cursor.seq


class MockLog:
    """All streams by name; every write is at once and for good."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self.streams: dict[str, MockStream] = {}
        self._clock = clock
        self._limits = limits
        self._epochs = 0

    def create(self, frame: CreateFrame) -> tuple[MockStream, bool]:
        """The stream of that name, and whether it is new."""
        found = self.streams.get(frame.stream)
        if found is not None:
            return found, False
        self._epochs += 1
        state = StreamState.OPEN if frame.lease is None else StreamState.RUNNING
        stream = MockStream(frame.stream, self._epochs, kind=frame.kind, state=state, lease=frame.lease)
        self.streams[frame.stream] = stream
        return stream, True

    def get(self, name: str) -> MockStream:
        stream = self.streams.get(name)
        if stream is None:
            raise NotFoundError(f"there is no stream {name}", stream=name)
        return stream

    def write(self, name: str, *texts: str, close: str | None = None) -> MockStream:
        """Append texts as the test's own doing, and end the stream where `close` names a state."""
        stream, _ = self.create(CreateFrame(id=0, stream=name))
        self._extend(stream, [NewMessage(text=text) for text in texts], None)
        if close is not None:
            stream.state = StreamState(close)
        return stream

    def append(self, frame: AppendFrame) -> Ack:
        """Append as the server does: duplicate, fenced, ended, gap, lease and conflict are checked in this order."""
        stream, producer = self.get(frame.stream), frame.producer
        known = None if producer is None else stream.producers.get(producer.id)
        if producer is not None and known is not None and (producer.epoch, producer.seq) in known:
            latest = producer.seq == known.next_seq - 1
            first, last = (known.first, known.last) if latest else (0, 0)
            return Ack(id=frame.id, first=first, last=last, duplicate=True)
        self._check(stream, frame, known)
        first = stream.head + 1
        self._extend(stream, frame.messages, None if producer is None else producer.id)
        if producer is not None:
            stream.producers[producer.id] = _ProducerState(producer.epoch, producer.seq + 1, first, stream.head)
        if frame.close is not None:
            self._close(stream, frame.close)
        return Ack(id=frame.id, first=first, last=stream.head)

    def _check(self, stream: MockStream, frame: AppendFrame, known: _ProducerState | None) -> None:
        producer = frame.producer
        if producer is not None and known is not None and producer.epoch < known.epoch:
            raise FencedError("a newer producer has taken over", epoch=known.epoch)
        if stream.state.terminal:
            raise EndedError(f"{stream.name} has ended", state=stream.state, head=stream.head)
        if producer is not None:
            expected = known.next_seq if known is not None and known.epoch == producer.epoch else 0
            if producer.seq != expected:
                raise ProducerGapError(f"the next append of {producer.id} is {expected}", expected=expected)
        if stream.lease is not None and (producer is None or producer.id != stream.lease.id):
            raise FencedError("another producer holds the lease", epoch=stream.lease.epoch)
        if frame.expected_head is not None and frame.expected_head != stream.head:
            raise ConflictError(f"the head is {stream.head}", head=stream.head)

    def _extend(self, stream: MockStream, messages: Sequence[NewMessage], producer: str | None) -> None:
        now = self._clock.now_ms()
        encoded = [encode_message(each, time_ms=now, producer=producer, limits=self._limits) for each in messages]
        for message in encoded:
            stream.encoded.append(message)
            stream.heads.append(chain(stream.heads[-1], stream.head, [message], stream.salts))

    @staticmethod
    def _close(stream: MockStream, close: CloseSpec) -> None:
        stream.state = StreamState(close.state)
        stream.reason = b"{}" if close.reason is UNSET else bytes(close.reason)
        stream.lease = None
