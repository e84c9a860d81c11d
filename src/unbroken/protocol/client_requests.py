"""What a client has asked for and has no answer to: kept, and sent again in order, until it is answered.

`ClientSession` owns one `Requests`. It never sends by itself and holds nothing that was answered; how much may wait
is its caller's bound (`Limits.client_pending_*`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Final

import msgspec

from unbroken.errors import ProducerGapError, UnbrokenError
from unbroken.limits import Limits
from unbroken.protocol.backoff import Backoff
from unbroken.protocol.client_outputs import Acked, Done, Failed, Output, Send
from unbroken.protocol.frames import Ack, AppendFrame, CancelFrame, CreateFrame, LeaseFrame, Result

__all__ = ["RENEWALS", "Request", "Requests"]

Request = CreateFrame | AppendFrame | CancelFrame | LeaseFrame
_LaneKey = tuple[str, str, int] | int
RENEWALS: Final = 3
"""How often a lease is renewed within its time, and so the part of it that anything may wait on which it depends."""


@dataclass(slots=True, eq=False)
class _Lane:
    """Requests that take effect in order: the appends of one incarnation of a producer, or one other request alone."""

    key: _LaneKey
    backoff: Backoff
    waiting: dict[int, _Pending] = field(default_factory=dict)
    retry_at: float | None = None
    refusals: int = 0


@dataclass(slots=True, eq=False)
class _Pending:
    key: int
    frame: Request
    lane: _Lane
    id: int = 0
    earlier_ids: list[int] = field(default_factory=list)


class Requests:
    """Requests in the order in which they were made.

    Sending again is safe for every kind: an append by its producer's numbers, the others because they are idempotent. A
    refusal that can pass (`retryable`) is retried with the rest of its lane after a backoff, at most
    `limits.client_retries_max` times in a row; then it is told as `Failed`. A lease is asked for again within a third of it.
    """

    def __init__(self, limits: Limits, random: Random, next_id: Callable[[], int]) -> None:
        self._limits = limits
        self._random = random
        self._next_id = next_id
        self._pending: dict[int, _Pending] = {}
        self._by_id: dict[int, _Pending] = {}
        self._lanes: dict[_LaneKey, _Lane] = {}
        self._resting: dict[_LaneKey, _Lane] = {}
        self._next_key = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, frame: Request, *, connected: bool) -> tuple[int, list[Output]]:
        """Keep `frame` and, where that keeps the order, send it now; gives the key that its outcome will carry."""
        self._next_key += 1
        lane = self._lane_of(frame, self._next_key)
        pending = _Pending(self._next_key, frame, lane)
        self._pending[pending.key] = lane.waiting[pending.key] = pending
        sends = connected and lane.retry_at is None
        return pending.key, [self._send(pending)] if sends else []

    def forget(self, key: int) -> None:
        """Send it no more and drop its outcome: whoever made it is gone."""
        pending = self._pending.get(key)
        if pending is not None:
            self._remove(pending)

    def send_all(self) -> list[Output]:
        """Everything unanswered, in order, on a fresh connection; lanes that rest after a refusal rest on."""
        return [self._send(pending) for pending in self._pending.values() if pending.lane.retry_at is None]

    def due(self, now: float) -> list[Output]:
        """Send again what has rested long enough."""
        outputs: list[Output] = []
        for lane in [lane for lane in self._resting.values() if lane.retry_at is not None and lane.retry_at <= now]:
            del self._resting[lane.key]
            lane.retry_at = None
            outputs += [self._send(pending) for pending in lane.waiting.values()]
        return outputs

    def next_at(self) -> float | None:
        """When something is due next."""
        return min((lane.retry_at for lane in self._resting.values() if lane.retry_at is not None), default=None)

    def acked(self, ack: Ack) -> list[Output]:
        pending = self._by_id.get(ack.id)
        if pending is None:
            return []
        self._remove(pending)
        pending.lane.refusals = 0
        return [Acked(pending.key, ack.id, ack.first, ack.last, ack.duplicate)]

    def done(self, frame: Result) -> list[Output]:
        pending = self._by_id.get(frame.id)
        if pending is None:
            return []
        self._remove(pending)
        return [Done(pending.key, frame.stream, frame.created)]

    def failed(self, number: int, error: UnbrokenError, *, retryable: bool, now: float) -> list[Output]:
        """The answer to the latest sending of a request is an error; one to an earlier sending is ignored."""
        pending = self._by_id.get(number)
        if pending is None or pending.id != number:
            return []
        lane = pending.lane
        if _rewinds(pending, error):
            # A message in front of it was refused or lost: the lane goes again from its oldest, which is that one.
            self._rest(lane, now, error)
            return []
        if retryable and lane.refusals < self._limits.client_retries_max:
            self._rest(lane, now, error)
            return []
        self._remove(pending)
        return [Failed(pending.key, number, error)]

    def fail_all(self, error: UnbrokenError) -> list[Output]:
        """Give up everything: the session was refused or is over."""
        given_up = list(self._pending.values())
        for pending in given_up:
            self._remove(pending)
        return [Failed(pending.key, pending.id, error) for pending in given_up]

    def _rest(self, lane: _Lane, now: float, error: UnbrokenError) -> None:
        if lane.retry_at is not None:
            return
        lane.refusals += 1
        oldest = next(iter(lane.waiting.values())).frame
        at_most = oldest.seconds / RENEWALS if isinstance(oldest, LeaseFrame) and oldest.seconds else inf
        lane.retry_at = now + lane.backoff.failure(now, at_least=retry_after(error), at_most=at_most)
        self._resting[lane.key] = lane

    def _send(self, pending: _Pending) -> Send:
        if pending.id:
            pending.earlier_ids.append(pending.id)
        pending.id = self._next_id()
        self._by_id[pending.id] = pending
        return Send(msgspec.structs.replace(pending.frame, id=pending.id))

    def _remove(self, pending: _Pending) -> None:
        del self._pending[pending.key]
        for number in (pending.id, *pending.earlier_ids):
            self._by_id.pop(number, None)
        lane = pending.lane
        del lane.waiting[pending.key]
        if not lane.waiting:
            self._lanes.pop(lane.key, None)
            self._resting.pop(lane.key, None)

    def _lane_of(self, frame: Request, key: int) -> _Lane:
        name: _LaneKey = key
        if isinstance(frame, AppendFrame) and frame.producer is not None:
            name = (frame.stream, frame.producer.id, frame.producer.epoch)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, Backoff(self._limits, self._random))
        return lane


def retry_after(error: UnbrokenError) -> float:
    """The seconds that an error asks to wait, 0 when it says nothing."""
    said = error.detail.get("retry_after_seconds", 0)
    return float(said) if isinstance(said, int | float) else 0.0


def _rewinds(pending: _Pending, error: UnbrokenError) -> bool:
    """Whether a gap in a producer's numbers is only the shadow of an append that is still kept here."""
    if not isinstance(error, ProducerGapError):
        return False
    oldest = next(iter(pending.lane.waiting.values())).frame
    assert isinstance(oldest, AppendFrame)
    return oldest.producer is not None and error.detail.get("expected") == oldest.producer.seq
