"""What a run's stream already holds when an execution begins: read once, folded into what going on needs.

The supervisor reads it before each execution, with the lease in hand, so that nobody appends meanwhile. Pure but for the
reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from unbroken.messages import Message, NewMessage, Seq, StreamInfo, decode_messages
from unbroken.streams import Streams

__all__ = ["CONTROL_KINDS", "History", "read_history"]

CONTROL_KINDS: Final = frozenset(
    {
        *("accepted", "started", "sent", "task", "progress", "log", "stderr", "checkpoint", "retry", "file"),
        *("input_required", "input", "result", "failed", "timed_out", "cancelled", "interrupted"),
    }
)
"""Kinds of messages that tell of a run; every other kind is what it yields."""


@dataclass(slots=True)
class History:
    """`started` counts executions; `yielded` messages since the last `checkpoint` (since the beginning without one)."""

    started: int = 0
    sent: int = 0
    checkpoint: msgspec.Raw | None = None
    yielded: int = 0
    asked: dict[str, msgspec.Raw] = field(default_factory=dict)
    """Requests for input by their id, as they were stored."""
    answered: dict[str, msgspec.Raw] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    """The streams of the files that it refers to."""
    latest: dict[str, msgspec.Raw] = field(default_factory=dict)
    """The newest message of each control kind."""

    def take(self, message: Message | NewMessage) -> None:
        """Fold one message in."""
        kind = message.kind
        if kind not in CONTROL_KINDS:
            self.yielded += 1
            return
        body = message.json if isinstance(message.json, msgspec.Raw) else msgspec.Raw(b"null")
        self.latest[kind] = body
        if kind == "started":
            self.started += 1
        elif kind == "sent":
            self.sent += 1
        elif kind == "checkpoint":
            self.checkpoint = msgspec.json.decode(body, type=_Checkpoint).state
            self.yielded = 0
        elif kind == "input_required":
            self.asked[msgspec.json.decode(body, type=_Identified).id] = body
        elif kind == "file":
            self.files.add(msgspec.json.decode(body, type=_File).stream)
        elif kind == "input":
            self.answered.setdefault(msgspec.json.decode(body, type=_Identified).id, body)


class _Checkpoint(msgspec.Struct, frozen=True):
    state: msgspec.Raw


class _File(msgspec.Struct, frozen=True):
    stream: str


class _Identified(msgspec.Struct, frozen=True):
    id: str


async def read_history(streams: Streams, stream: StreamInfo) -> tuple[History, Seq]:
    """The history of `stream` up to its head, and that head."""
    history = History()
    seq = Seq(stream.first - 1)
    while True:
        found = await streams.read(stream, seq)
        for batch in found.batches:
            for message in decode_messages(batch.body):
                history.take(message)
            seq = batch.last
        if not found.batches:
            return history, seq
