"""How long a client waits before it connects again: a count of failures and the rule of PROTOCOL.md 4.4.

`ClientSession` asks it at every loss of a connection. It never waits and never reads a clock: time and chance come in.
"""

from __future__ import annotations

from math import inf
from random import Random

from unbroken.limits import Limits

__all__ = ["Backoff"]

DOUBLINGS_MAX = 64


class Backoff:
    """Exponential backoff with jitter and a cap, that starts again after a stable period.

    The n-th failure in a row (n from 0) gives a random time between half and the whole of
    min(`backoff_seconds_min` · 2^n, `backoff_seconds_max`). The count goes on through connections that do not last, and
    starts again only after one that worked for `backoff_reset_seconds`.
    """

    def __init__(self, limits: Limits, random: Random) -> None:
        self._limits = limits
        self._random = random
        self._failures = 0
        self._working_since: float | None = None

    @property
    def failures(self) -> int:
        """Failures in a row so far."""
        return self._failures

    def working(self, now: float) -> None:
        """The connection works since `now`."""
        self._working_since = now

    def failure(self, now: float, *, at_least: float = 0.0, at_most: float = inf) -> float:
        """Count a failure at `now` and say how many seconds to wait.

        `at_most` is a lower cap than `backoff_seconds_max`; it is never less than `at_least`, whatever the cap.
        """
        since, self._working_since = self._working_since, None
        if since is not None and now - since >= self._limits.backoff_reset_seconds:
            self._failures = 0
        doublings = min(self._failures, DOUBLINGS_MAX)
        self._failures += 1
        whole = min(self._limits.backoff_seconds_min * 2**doublings, self._limits.backoff_seconds_max, at_most)
        return max(self._random.uniform(whole / 2, whole), at_least)
