"""An independent, naive model of a store: every stream holds all of its messages, forks are copies, nothing is clever.

The state machine test holds the stores against it. It shares no code with them, and knows the order of the checks from the
documentation of the operations alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unbroken.errors import (
    AlreadyExistsError,
    ConflictError,
    EndedError,
    FencedError,
    InvalidError,
    NotFoundError,
    ProducerGapError,
    SequenceError,
    TransitionError,
)
from unbroken.store.base import Append, DeleteStream, SetLease, SetState, Trim

ENDED = ("completed", "failed", "cancelled", "timed_out", "interrupted")
ALLOWED = {
    "open": {"running", "paused", *ENDED},
    "running": {"running", "open", "paused", *ENDED},
    "paused": {"running", "open", *ENDED},
}
Outcome = tuple[object, ...] | type[Exception]


@dataclass(eq=False)
class ModelStream:
    """A stream as somebody who never forgets anything would keep it."""

    name: str
    number: int = 0
    epoch: int = 0
    messages: list[bytes] = field(default_factory=list)
    first: int = 1
    state: str = "open"
    lease: tuple[str, int, int] | None = None
    lease_length: int = 0
    producers: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    writer_seq: str | None = None
    source: ModelStream | None = None
    fork_seq: int = 0
    genesis: bytes = b""
    deleted: bool = False
    gone: bool = False

    @property
    def head(self) -> int:
        return len(self.messages)


class Model:
    """All streams of one principal."""

    def __init__(self) -> None:
        self.streams: list[ModelStream] = []

    def named(self, name: str) -> ModelStream | None:
        return next((s for s in self.streams if s.name == name), None)

    def forks(self, stream: ModelStream) -> list[ModelStream]:
        return [s for s in self.streams if s.source is stream]

    def create(
        self, name: str, messages: tuple[bytes, ...], source: ModelStream | None, seq: int
    ) -> ModelStream | type:
        """The stream of that name (fresh ones have no number yet), or the reason why there is none."""
        found = self.named(name)
        if found is not None:
            return found
        if source is not None and source.gone:
            return NotFoundError
        if source is not None and source.deleted:
            return AlreadyExistsError
        if source is not None and not 0 <= seq <= source.head:
            return InvalidError
        fresh = ModelStream(name, messages=list(messages), source=source, fork_seq=seq)
        if source is not None:
            fresh.messages = source.messages[:seq] + fresh.messages
            fresh.first = min(source.first, seq + 1)
        self.streams.append(fresh)
        return fresh

    def append(self, stream: ModelStream, op: Append) -> Outcome:
        if stream.gone or stream.deleted:
            return NotFoundError
        known = None if op.producer is None else stream.producers.get(op.producer.id)
        if op.producer is not None and known is not None:
            if op.producer.epoch == known[0] and op.producer.seq == known[1]:
                return ("duplicate", known[2], known[3])
            if op.producer.epoch == known[0] and op.producer.seq < known[1]:
                return ("duplicate", 0, 0)
            if op.producer.epoch < known[0]:
                return FencedError
        refusal = self._refusal(stream, op, known)
        if refusal is not None:
            return refusal
        place = (stream.head + 1, stream.head + len(op.messages))
        stream.messages += op.messages
        stream.writer_seq = op.writer_seq or stream.writer_seq
        if op.close is not None:
            stream.state, stream.lease = op.close.state.value, None
        if op.producer is not None:
            stream.producers[op.producer.id] = (op.producer.epoch, op.producer.seq, *place)
        return ("appended", *place)

    def _refusal(self, stream: ModelStream, op: Append, known: tuple[int, ...] | None) -> type[Exception] | None:
        if stream.state in ENDED:
            return EndedError
        if op.producer is not None:
            goes_on = known is not None and known[0] == op.producer.epoch
            if op.producer.seq != (known[1] + 1 if goes_on and known is not None else 0):
                return ProducerGapError
        if stream.lease is not None and stream.lease[2] > op.now_ms:
            holder, epoch, _ = stream.lease
            if op.producer is None or op.producer.id != holder or op.producer.epoch < epoch:
                return FencedError
        if op.expected_head is not None and op.expected_head != stream.head:
            return ConflictError
        if op.writer_seq is not None and stream.writer_seq is not None and op.writer_seq <= stream.writer_seq:
            return SequenceError
        return None

    def set_state(self, stream: ModelStream, op: SetState) -> Outcome:
        if stream.gone or stream.deleted:
            return NotFoundError
        if stream.state in ENDED:
            return EndedError
        before = op.only_if_lease_before_ms
        if before is not None and (stream.lease is None or stream.lease[2] >= before):
            return TransitionError
        if op.fence is not None and stream.lease is not None and stream.lease[:2] != op.fence:
            return FencedError
        if op.state.value not in ALLOWED[stream.state]:
            return TransitionError
        stream.state = op.state.value
        if stream.state != "running":
            stream.lease = None
        return ("done",)

    def set_lease(self, stream: ModelStream, op: SetLease) -> Outcome:
        if stream.gone or stream.deleted:
            return NotFoundError
        if stream.state in ENDED:
            return EndedError
        if stream.lease is not None:
            holder, epoch, until = stream.lease
            if holder == op.producer and op.producer_epoch < epoch:
                return FencedError
            if holder != op.producer and (until > op.now_ms or op.until_ms is None):
                return FencedError
        if op.until_ms is not None:
            if stream.state == "paused":
                return TransitionError
            stream.lease, stream.state = (op.producer, op.producer_epoch, op.until_ms), "running"
            stream.lease_length = op.until_ms - op.now_ms
        elif stream.lease is not None:
            stream.lease, stream.state = None, "open"
        return ("done",)

    def trim(self, stream: ModelStream, op: Trim) -> Outcome:
        if stream.gone or stream.deleted:
            return NotFoundError
        if not 1 <= op.first <= stream.head + 1:
            return InvalidError
        stream.first = max(stream.first, op.first)
        return ("done",)

    def delete(self, stream: ModelStream, op: DeleteStream) -> Outcome:
        assert op.epoch == stream.epoch
        if stream.gone or stream.deleted:
            return NotFoundError
        if self.forks(stream):
            stream.deleted, stream.lease = True, None
            return ("done",)
        current: ModelStream | None = stream
        while current is not None and not self.forks(current) and (current is stream or current.deleted):
            current.gone = True
            self.streams.remove(current)
            current = current.source
        return ("done",)
