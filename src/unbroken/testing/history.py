"""`History`: what producers were told and what observers got of one stream, in the order in which it happened.

Tests record into it while they break things, and `check` then judges the whole by `history_check`. It never looks at
the stream itself: what it knows is what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256

import msgspec

from unbroken.testing.history_check import judge
from unbroken.testing.history_events import (
    Ack,
    Deliver,
    End,
    Event,
    Fail,
    Fault,
    Final,
    Heal,
    Invoke,
    Leave,
    Open,
    Read,
    Trim,
    Unknown,
)
from unbroken.testing.history_report import Report, Rule

__all__ = ["History"]

Item = tuple[int, str, str | bytes]
"""Place, id and payload of one message."""


class History:
    """The record of one stream.

    A message's `id` is what makes it one message for the application (its text, say); appending it again with the same
    producer numbers is the same message. `now` gives seconds, for the lag figures only; order is the order of the
    calls.

    ```
    history = History()
    history.invoke("p", "m1", payload)         # before the append is sent
    history.ack("m1", seq)                     # or fail("m1"), or unknown("m1")
    history.open("viewer", cursor)             # at each connection of an observer
    history.deliver("viewer", seq, "m1", payload)
    history.end("viewer", "completed")
    history.fault("ResetPeer", applied.bites)
    history.final(messages)                    # a complete read by a fresh observer, at last
    history.check().raise_if_failed()
    ```
    """

    def __init__(self, *, now: Callable[[], float] | None = None) -> None:
        self.events: list[Event] = []
        self._now = now or (lambda: 0.0)
        self._reads = 0

    # --- producers ---------------------------------------------------------------------------------------------------

    def invoke(self, producer: str, id: str, payload: str | bytes = b"") -> None:
        """`producer` is about to send `id`."""
        self.events.append(Invoke(producer, id, digest(payload)))

    def ack(self, id: str, position: int = 0) -> None:
        """The server said that `id` is durable, at `position` (0 where it did not say)."""
        self.events.append(Ack(id, position))

    def fail(self, id: str) -> None:
        """The server said that `id` had no effect."""
        self.events.append(Fail(id))

    def unknown(self, id: str) -> None:
        """Nobody can say whether `id` had an effect."""
        self.events.append(Unknown(id))

    # --- observers ---------------------------------------------------------------------------------------------------

    def open(self, observer: str, cursor: int = 0) -> None:
        """`observer` begins, or comes back, and asks for what follows `cursor`."""
        self.events.append(Open(observer, cursor))

    def deliver(self, observer: str, position: int, id: str, payload: str | bytes = b"") -> None:
        self.events.append(Deliver(observer, position, id, digest(payload)))

    def end(self, observer: str, state: str) -> None:
        """`observer` was told that the stream ended."""
        self.events.append(End(observer, state, self._now()))

    def leave(self, observer: str) -> None:
        """`observer` goes by its own wish: nobody owes it anything more."""
        self.events.append(Leave(observer))

    def read(self, observer: str) -> Callable[[int], None]:
        """`observer` begins a bounded read; call the answer with the last position that it gave."""
        self._reads += 1
        number = self._reads
        self.events.append(Read(observer, number, begins=True))
        return lambda last: self.events.append(Read(observer, number, begins=False, last=last))

    def final(self, items: Iterable[Item], *, state: str = "", observer: str = "final") -> None:
        """A complete read by a fresh observer after the last fault has healed: the truth at the end."""
        rows = tuple((position, id, digest(payload)) for position, id, payload in items)
        self.events.append(Final(observer, rows, state))

    # --- the world ---------------------------------------------------------------------------------------------------

    def fault(self, kind: str, effect: int = 1) -> None:
        """A fault was over and really bit `effect` times; with 0 the run proves nothing."""
        self.events.append(Fault(kind, effect))

    def heal(self) -> None:
        """The last fault is over: from now on everybody must get to the end."""
        self.events.append(Heal(self._now()))

    def trim(self, first: int) -> None:
        """Messages before `first` were deleted on purpose.

        An observer that had not read them all and is told so goes on under another name, with an `open` at its new place:
        one that silently passes over them has a hole.
        """
        self.events.append(Trim(first))

    # --- judging -----------------------------------------------------------------------------------------------------

    def check(
        self, *, messages_min: int = 1, liveness_seconds: float | None = None, without: frozenset[Rule] = frozenset()
    ) -> Report:
        """Judge everything by the thirteen rules, in time linear in the number of events.

        `messages_min` is what observers must have got for a verdict at all; `liveness_seconds` bounds the time from
        `heal` to the end (None: only that it comes); `without` names rules that the stream does not claim.
        """
        return judge(self.events, messages_min=messages_min, liveness_seconds=liveness_seconds, without=without)

    def lines(self) -> Iterator[bytes]:
        """The record as JSON lines; keep it as the artifact of a failed run."""
        for event in self.events:
            yield msgspec.json.encode(event)

    @classmethod
    def from_lines(cls, lines: Iterable[bytes]) -> History:
        """A record from its JSON lines."""
        history = cls()
        decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
        history.events = [decoder.decode(line) for line in lines]
        return history


def digest(payload: str | bytes) -> str:
    """A short digest of a payload."""
    data = payload.encode() if isinstance(payload, str) else payload
    return sha256(data).hexdigest()[:16] if data else ""
