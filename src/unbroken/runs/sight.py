"""How long this process has seen each run of others be as it is: what a lease is measured by, apart from the wall clock.

The supervisor looks at all runs again and again and asks before it takes one over. Time in which nobody looked hardly counts,
so neither a clock that was set nor a machine that slept makes anybody seem dead. It reads no clock and no store.
"""

from __future__ import annotations

from unbroken.messages import StreamId, StreamInfo, StreamState

__all__ = ["Sight"]

_Facts = tuple[StreamState, str | None, int, int | None]


class Sight:
    """What the looks so far have shown; a pause between two looks counts for `gap_seconds_max` at most."""

    def __init__(self, gap_seconds_max: float) -> None:
        self._gap_max = gap_seconds_max
        self._looked_at: float | None = None
        self._gap = 0.0
        self._before: dict[StreamId, tuple[_Facts, float]] = {}
        self._now: dict[StreamId, tuple[_Facts, float]] = {}

    def look(self, at: float) -> None:
        """A new look begins, `at` by the loop's clock; what the last one did not show is forgotten."""
        self._gap = 0.0 if self._looked_at is None else min(at - self._looked_at, self._gap_max)
        self._looked_at = at
        self._before, self._now = self._now, {}

    def seconds(self, info: StreamInfo) -> float:
        """For how long the run has been as this look shows it: the same state, under the same lease."""
        facts = (info.state, info.lease_producer, info.lease_epoch, info.lease_until_ms)
        known, seconds = self._before.get(info.id, (None, 0.0))
        seen = seconds + self._gap if known == facts else 0.0
        self._now[info.id] = (facts, seen)
        return seen

    def forget(self) -> None:
        """Nobody could renew a lease: every run begins anew."""
        self._now.clear()
