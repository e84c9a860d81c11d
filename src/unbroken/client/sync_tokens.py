"""`SyncTokens`: what `SyncClient.tokens` is, call for call what `ClientTokens` is to `Client`.

`SyncClient` makes it and lends it its way into the event loop. It decides nothing of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from unbroken.client.sync_runs import Call
from unbroken.client.tokens import ClientTokens, MadeToken, TokenPage
from unbroken.identity import Grant

__all__ = ["SyncTokens"]


class SyncTokens:
    """Blocking calls with the promises of `ClientTokens`; may be shared between threads."""

    def __init__(self, call: Call, tokens: ClientTokens) -> None:
        self._call = call
        self._tokens = tokens

    def create(
        self,
        grants: Sequence[Grant] | None = None,
        *,
        kind: Literal["key", "link"] = "key",
        label: str = "",
        expires_in: float | None = None,
    ) -> MadeToken:
        """Make a token; see `ClientTokens.create`."""
        return self._call(self._tokens.create(grants, kind=kind, label=label, expires_in=expires_in))

    def share(self, stream: str, *, epoch: int | None = None, expires_in: float = 86_400, label: str = "") -> MadeToken:
        """A link for reading one stream; see `ClientTokens.share`."""
        return self._call(self._tokens.share(stream, epoch=epoch, expires_in=expires_in, label=label))

    def list(self, *, limit: int = 100, page: str | None = None) -> TokenPage:
        """A page of tokens; see `ClientTokens.list`."""
        return self._call(self._tokens.list(limit=limit, page=page))

    def revoke(self, token: str) -> None:
        """Revoke a token; see `ClientTokens.revoke`."""
        self._call(self._tokens.revoke(token))
