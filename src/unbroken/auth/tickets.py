"""Tickets: what lets a browser open a WebSocket, or a stream of events, without a token in the URL.

The HTTP face issues them, the WebSocket handshake and `Callers` spend them. They live in memory only, as hashes, and are
gone with the process: a client asks for a new one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from unbroken.clock import Clock
from unbroken.errors import OverloadedError, QuotaError, UnauthorizedError
from unbroken.identity import Principal
from unbroken.limits import Limits

__all__ = ["Tickets"]

TICKET_BYTES = 32
OPERATOR = ("local", "local")


@dataclass(frozen=True, slots=True)
class _Issued:
    principal: Principal
    origin: str | None
    issued_ms: int
    expires_ms: int

    def good(self, now_ms: int) -> bool:
        """Whether it is in force; where the clock stands before its beginning, nobody can say for how long it was."""
        return self.issued_ms <= now_ms < self.expires_ms


class Tickets:
    """Every ticket that is out: each works once, for `ticket_seconds`, and only from the origin that asked for it.

    It is no better than the credential that it was asked for with: it ends with that, and is forgotten when that is revoked.

    Belongs to one event loop; issuing and spending are single steps that nothing can come between.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._issued: dict[bytes, _Issued] = {}
        self._out: Counter[tuple[str, ...]] = Counter()
        """How many of them are whose."""

    def __len__(self) -> int:
        return len(self._issued)

    def issue(self, principal: Principal, origin: str | None) -> str:
        """A fresh ticket; `QuotaError` while too many of one owner are out.

        While `tickets_max` are out, the oldest of who has most is void from here on; `OverloadedError` for that one itself.
        Of the operator's own things each credential counts by itself, so that no link of theirs takes what they need.
        """
        now = self._clock.now_ms()
        self._forget(now)
        whose, most = _whose(principal), self._limits.tickets_of_owner_max
        if self._out[whose] >= most:
            raise QuotaError(
                f"more than the {most} tickets of one owner are out",
                limit="tickets_of_owner_max",
                retry_after_seconds=1,
            )
        if len(self._issued) >= self._limits.tickets_max:
            self._make_room(whose)
        self._out[whose] += 1
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        expires = now + int(self._limits.ticket_seconds * 1000)
        if principal.expires_ms is not None:
            expires = min(expires, principal.expires_ms)
        self._issued[_hash(ticket)] = _Issued(principal, origin, now, expires)
        return ticket

    def spend(self, ticket: str, origin: str | None, *, own: Callable[[str], bool] | None = None) -> Principal:
        """Whose ticket it is; it is void from here on, whatever the outcome.

        With `own`, a request without an origin is taken for one of the server's own pages, which `own` knows. Raises
        `UnauthorizedError` for one that was never issued, was spent, is too old, or comes from another origin.
        """
        issued = self._take(_hash(ticket))
        if issued is None or not issued.good(self._clock.now_ms()):
            raise UnauthorizedError("the ticket is not valid, or not any more")
        own_page = origin is None and own is not None and issued.origin is not None and own(issued.origin)
        if issued.origin != origin and not own_page:
            raise UnauthorizedError("the ticket is not valid, or not any more")
        return issued.principal

    def forget(self, credential: str) -> None:
        """Void every ticket that was asked for with `credential`."""
        for key in [key for key, kept in self._issued.items() if kept.principal.credential == credential]:
            self._take(key)

    def _take(self, key: bytes) -> _Issued | None:
        """Take a ticket out; nobody else gets it."""
        issued = self._issued.pop(key, None)
        if issued is not None:
            whose = _whose(issued.principal)
            self._out[whose] -= 1
            if not self._out[whose]:
                del self._out[whose]
        return issued

    def _make_room(self, asking: tuple[str, ...]) -> None:
        """Of the tenant that has most, the owner that has most loses the oldest; neither for one who has as many."""
        tenants: Counter[str] = Counter()
        for whose, count in self._out.items():
            tenants[whose[0]] += count
        most = max(self._out, key=lambda whose: (tenants[whose[0]], self._out[whose]))
        by_owner = most[0] == asking[0]
        has, has_most = (self._out[asking], self._out[most]) if by_owner else (tenants[asking[0]], tenants[most[0]])
        if has >= has_most:
            raise OverloadedError("too many tickets are out", limit="tickets_max", retry_after_seconds=1)
        self._take(next(key for key, kept in self._issued.items() if _whose(kept.principal) == most))

    def _forget(self, now: int) -> None:
        """Drop what has expired; the oldest come first, and with them most of what has."""
        while self._issued:
            oldest = next(iter(self._issued))
            if self._issued[oldest].good(now):
                break
            self._take(oldest)
        if len(self._issued) >= self._limits.tickets_max:
            for key in [key for key, kept in self._issued.items() if not kept.good(now)]:
                self._take(key)


def _whose(principal: Principal) -> tuple[str, ...]:
    """Whose count a ticket is in."""
    owner = (principal.tenant, principal.subject)
    return (*owner, principal.credential) if owner == OPERATOR else owner


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode(errors="replace")).digest()
