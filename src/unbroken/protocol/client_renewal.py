"""When a client asks for a newer credential: in time before the present one ends, and again while there is time.

`ClientSession` keeps one for its connection. It reads no clock and sends nothing.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Renewal"]

PART: Final = 0.75
"""How much of the remaining time passes before a renewal; what is left then is divided again should it fail."""
SECONDS_MIN: Final = 1.0
"""With less than this left, the end is waited for."""


class Renewal:
    """The end of the present connection's credential, as the server said it."""

    def __init__(self) -> None:
        self.at: float | None = None
        """When the next renewal is due."""
        self.number = -1
        """The id of the `auth` frame that is on its way."""
        self._ends_at = 0.0

    def forget(self) -> None:
        """There is no connection, or a new one."""
        self.at, self.number = None, -1

    def learn(self, now: float, expires_seconds: float | None) -> None:
        """The credential is good for so long; None: it has no end."""
        self.number = -1
        self._ends_at = now if expires_seconds is None else now + expires_seconds
        self._plan(now)

    def due(self, now: float) -> bool:
        """Whether to renew now; then the next one is planned for the case that this one fails."""
        if self.at is None or now < self.at:
            return False
        self._plan(now)
        return True

    def _plan(self, now: float) -> None:
        left = self._ends_at - now
        self.at = now + PART * left if left >= SECONDS_MIN else None
