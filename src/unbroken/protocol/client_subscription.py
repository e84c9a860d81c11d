"""One subscription as its client sees it: the cursor, what is dropped, what is asked for again, and when it is over.

`ClientSession` owns one for each stream followed and gives it the frames of that stream. It never sends by itself,
keeps no messages, and knows neither connections nor time.
"""

from __future__ import annotations

from collections.abc import Callable

from unbroken.errors import ProtocolError, VerificationError
from unbroken.limits import Limits
from unbroken.messages import Cursor, Epoch, Seq, StreamState
from unbroken.protocol.client_chain import ChainCheck, Verify
from unbroken.protocol.client_outputs import (
    Dropped,
    Ended,
    EpochChanged,
    Gap,
    MessagesReceived,
    Output,
    Send,
    StateChanged,
    SubscriptionFailed,
    SubscriptionStands,
    Trimmed,
)
from unbroken.protocol.codec import ReceivedMessages
from unbroken.protocol.frames import StateFrame, Subscribe, Subscribed

__all__ = ["Subscription"]


class Subscription:
    """The place in one stream, moved only by messages that continue it densely.

    `cursor` is None until the server said where the wanted place is. `standing` is False between a `subscribe` and its
    answer: then a gap is expected and not asked for again.
    """

    def __init__(self, stream: str, after: str, *, verify: Verify, limits: Limits, next_id: Callable[[], int]) -> None:
        self.stream = stream
        self.after = after
        self.cursor = Cursor.parse(after) if ":" in after and not after.startswith("last:") else None
        self.id = 0
        self.standing = False
        self.over = False
        self.paused = False
        self.behind = False
        self._held = 0
        self._chain = ChainCheck(stream, verify)
        self._limits = limits
        self._next_id = next_id

    def subscribe(self) -> Send:
        """Ask for everything behind the cursor, or behind the application's own place while there is none."""
        self.id = self._next_id()
        self.standing = False
        self.behind = False
        place = self.after if self.cursor is None else str(self.cursor)
        return Send(Subscribe(id=self.id, stream=self.stream, after=place))

    def pause(self) -> None:
        self.paused = True
        self._held = 0

    def subscribed(self, frame: Subscribed) -> list[Output]:
        """The answer to the latest `subscribe`; one to an earlier is ignored."""
        if frame.id != self.id:
            return []
        place = Cursor.parse(frame.cursor)
        outputs: list[Output] = []
        if self.cursor is not None and self.cursor.epoch != place.epoch:
            self.cursor = None
            self._chain.forget()
            outputs.append(EpochChanged(self.stream, place.epoch))
        if self.cursor is not None and place.seq > self.cursor.seq:
            raise ProtocolError(f"asked for {self.stream} after {self.cursor}, answered after {place}")
        self.standing = True
        outputs.append(SubscriptionStands(self.stream, place, frame.stream))
        if self.cursor is None or place == self.cursor:
            self.cursor = place
            broken = self._chain.begin(frame, place.seq)
            if broken is not None:
                return [*outputs, self._fail(broken)]
        return outputs

    def messages(self, frame: ReceivedMessages) -> list[Output]:
        """Take what continues the cursor; say what was dropped and why."""
        count = len(frame.messages)
        if self.cursor is None:
            return [Dropped(self.stream, count, "unknown")]
        if frame.epoch != self.cursor.epoch:
            return [Dropped(self.stream, count, "epoch")]
        expected = self.cursor.seq + 1
        if self.behind or (self.paused and self._held > self._limits.client_follow_messages_max):
            self.behind = True
            return [Dropped(self.stream, count, "paused")]
        if frame.first > expected:
            return [Dropped(self.stream, count, "gap"), *self._gap(frame.first)]
        overlap = min(expected - frame.first, count)
        outputs: list[Output] = [Dropped(self.stream, overlap, "overlap")] if overlap else []
        if overlap < count:
            outputs += self._take(frame, overlap)
        return outputs

    def state(self, frame: StateFrame) -> list[Output]:
        """Tell a change of state; a terminal one only behind the last message."""
        view = frame.stream
        if self.cursor is not None and view.epoch != self.cursor.epoch:
            return []
        if not _terminal(view.state):
            return [StateChanged(view)]
        if self.cursor is None or self.behind:
            return []
        if view.head > self.cursor.seq:
            return self._gap(view.head + 1)
        broken = self._chain.end(self.cursor.seq)
        if broken is not None:
            return [self._fail(broken)]
        self.over = True
        return [Ended(view)]

    def epoch_changed(self, epoch: int) -> list[Output]:
        """The server says that the cursor belongs to an earlier incarnation: begin again."""
        self.after, self.cursor = "start", None
        self._chain.forget()
        return [EpochChanged(self.stream, epoch), self.subscribe()]

    def trimmed(self, first: int) -> list[Output]:
        """The server says that the next message was trimmed: go on with the oldest retained."""
        if self.cursor is None:
            self.after = "start"
            return [Trimmed(self.stream, 0, first), self.subscribe()]
        missing = max(first - 1 - self.cursor.seq, 0)
        self.cursor = Cursor(self.cursor.epoch, Seq(max(first - 1, self.cursor.seq)))
        if missing:
            self._chain.forget()
        return [Trimmed(self.stream, missing, first), self.subscribe()]

    def _take(self, frame: ReceivedMessages, overlap: int) -> list[Output]:
        assert self.cursor is not None
        first, encoded = frame.first + overlap, frame.encoded()[overlap:]
        messages = tuple(frame.decoded()[overlap:])
        broken = self._chain.messages(frame.hash, first, encoded)
        if broken is not None:
            return [self._fail(broken)]
        self.cursor = Cursor(Epoch(frame.epoch), Seq(frame.last))
        if self.paused:
            self._held += len(messages)
        size = sum(map(len, encoded))
        return [MessagesReceived(self.stream, frame.epoch, first, messages, size, frame.hash)]

    def _fail(self, error: VerificationError) -> Output:
        self.over = True
        return SubscriptionFailed(self.stream, error)

    def _gap(self, first: int) -> list[Output]:
        """What is missing in front of `first`: asked for once, then awaited."""
        assert self.cursor is not None
        if not self.standing:
            return []
        return [Gap(self.stream, self.cursor.seq + 1, first), self.subscribe()]


def _terminal(state: str) -> bool:
    try:
        return StreamState(state).terminal
    except ValueError:
        raise ProtocolError(f"{state!r} is not a state of a stream") from None
