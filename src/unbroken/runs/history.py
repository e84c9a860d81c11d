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
PROGRESS_KINDS: Final = frozenset({"checkpoint", "task", "file", "input_required", "input"})
"""Kinds that bring a run forward, as what it yields does: an execution after a crash need not do it again."""
REPEATED_KINDS: Final = frozenset({"checkpoint", "task"})
"""Of those, what an execution may say again with nothing new in it."""


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
    crashes: int = 0
    """How many executions in a row began after a crash and had nothing new to show for the one before."""
    got_on: bool = False
    """Whether the newest execution brought the run forward."""

    @property
    def crashes_now(self) -> int:
        """As `crashes`, when the newest execution has crashed too. Waiting for an answer is nobody's fault."""
        if self.got_on:
            return 0
        return self.crashes + (self.started > 0 and self.asked.keys() <= self.answered.keys())

    def take(self, message: Message | NewMessage) -> None:
        """Fold one message in."""
        kind = message.kind
        if kind not in CONTROL_KINDS:
            self.yielded += 1
            self._gets_on()
            return
        body = message.json if isinstance(message.json, msgspec.Raw) else msgspec.Raw(b"null")
        if kind in PROGRESS_KINDS and (kind not in REPEATED_KINDS or body != self.latest.get(kind)):
            self._gets_on()
        self.latest[kind] = body
        if kind == "started":
            started = msgspec.json.decode(body, type=_Started | None)
            if started is not None and started.after_crash:
                self.crashes = self.crashes_now
            self.got_on = False
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

    def _gets_on(self) -> None:
        self.got_on = True
        self.crashes = 0


class _Started(msgspec.Struct, frozen=True):
    after_crash: bool = False


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
