"""What is kept about credentials: tokens that the store knows, and what was revoked before its time.

`Callers` and `LiveViewers` ask it, `stored.StoredTokens` answers. Nothing here sees more of a credential than its name,
but for the one secret that a token is looked up by.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from unbroken.identity import Principal

__all__ = ["Credentials"]


class Credentials(Protocol):
    """The stored side of who may come in."""

    async def principal_of_token(self, secret: str) -> Principal | None:
        """Whose stored token `secret` is; None for what is no token, or none any more."""
        ...

    async def revoked(self, principals: Collection[Principal]) -> frozenset[str]:
        """The credentials of those of `principals` that were revoked."""
        ...

    async def revoke(self, principal: Principal) -> None:
        """From now on the credential of `principal` is good for nothing. Idempotent."""
        ...
