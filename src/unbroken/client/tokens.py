"""Tokens: handing on a part of what one may do, as a key for a program or a link for people, and taking it back.

`Client.tokens` is this. A secret is in the answer to `create` alone; it never appears in a listing, a log or a `repr`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

import msgspec

from unbroken.client.http import HttpFace
from unbroken.identity import Grant, Verb
from unbroken.protocol.views import GrantView, TokenView

__all__ = ["ClientTokens", "MadeToken", "TokenPage"]


class MadeToken(TokenView, frozen=True, kw_only=True):
    """A fresh token with its secret."""

    token: str

    def __repr__(self) -> str:
        return f"MadeToken(id={self.id!r}, kind={self.kind!r}, label={self.label!r})"


class TokenPage(msgspec.Struct, frozen=True):
    """One page of a listing; `next` continues it."""

    tokens: list[TokenView]
    next: str | None = None


class ClientTokens:
    """`client.tokens`: what is handed on with the client's own credential."""

    def __init__(self, face: HttpFace) -> None:
        self._face = face

    async def create(
        self,
        grants: Sequence[Grant] | None = None,
        *,
        kind: Literal["key", "link"] = "key",
        label: str = "",
        expires_in: float | None = None,
    ) -> MadeToken:
        """Make a token; durable when it returns. Without `grants` it may do all that the client may.

        It ends when the client's own credential ends, if not after `expires_in` seconds. Raises `ForbiddenError` for more
        than the client may do and manage, `InvalidError` for what cannot be a token.
        """
        body: dict[str, object] = {"kind": kind, "label": label}
        if grants is not None:
            body["grants"] = [
                GrantView(name=grant.name, verbs=sorted(grant.verbs), prefix=grant.prefix, epoch=grant.epoch)
                for grant in grants
            ]
        if expires_in is not None:
            body["expires_in"] = round(expires_in)
        return await self._face.send("POST", "/v1/tokens", MadeToken, body)

    async def share(
        self, stream: str, *, epoch: int | None = None, expires_in: float = 86_400, label: str = ""
    ) -> MadeToken:
        """A link with which anybody may read `stream` until it ends; with `epoch` not one that has its name later."""
        grant = Grant(stream, frozenset({Verb.READ}), epoch=epoch)
        return await self.create([grant], kind="link", label=label, expires_in=expires_in)

    async def list(self, *, limit: int = 100, page: str | None = None) -> TokenPage:
        """A page of the tokens for what is the client's; of one that is not the owner's, those handed on with it."""
        return await self._face.get("/v1/tokens", TokenPage, {"limit": str(limit), "page": page})

    async def revoke(self, token: str) -> None:
        """Revoke the token with this id, and all that were handed on with it; `NotFoundError` when there is none of yours."""
        await self._face.delete(f"/v1/tokens/{quote(token, safe='')}")
