"""What is kept about credentials: tokens that the store knows, and what was revoked before its time.

`Callers` and `LiveViewers` ask it. `Revocations` is what there is without a store that keeps them: it lives as long as the
process. Nothing here sees more of a credential than its name, but for the one secret that a token is looked up by.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from unbroken.clock import Clock
from unbroken.errors import OverloadedError
from unbroken.identity import Principal
from unbroken.limits import Limits

__all__ = ["Credentials", "Revocations"]


class Credentials(Protocol):
    """The stored side of who may come in."""

    async def principal_of_token(self, secret: str) -> Principal | None:
        """Whose stored token `secret` is; None for what is no token, or none any more."""
        ...

    async def revoked(self, credentials: Collection[str]) -> frozenset[str]:
        """Those of `credentials` (`Principal.credential`) that were revoked."""
        ...

    async def revoke(self, principal: Principal) -> None:
        """From now on the credential of `principal` is good for nothing. Idempotent."""
        ...


class Revocations:
    """`Credentials` in memory: no stored tokens, and revocations until the credential would have ended anyway."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._until: dict[str, int | None] = {}

    async def principal_of_token(self, secret: str) -> Principal | None:
        return None

    async def revoked(self, credentials: Collection[str]) -> frozenset[str]:
        return frozenset(credentials) & self._until.keys()

    async def revoke(self, principal: Principal) -> None:
        if len(self._until) >= self._limits.revocations_max:
            now = self._clock.now_ms()
            self._until = {name: until for name, until in self._until.items() if until is None or until > now}
            if len(self._until) >= self._limits.revocations_max:
                raise OverloadedError("too many revocations", limit="revocations_max", retry_after_seconds=60)
        self._until[principal.credential] = principal.expires_ms
