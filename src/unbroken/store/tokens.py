"""Tokens and revocations as a store keeps them, and the half of a store's interface that they need.

`unbroken.auth.stored` makes and reads them; every store passes one contract suite. A store never sees a secret: only the
SHA-256 that it is found by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from unbroken.errors import CorruptError
from unbroken.identity import Grant, Principal, Verb

if TYPE_CHECKING:
    from unbroken.store.base import Page

__all__ = [
    "KEPT_AFTER_ITS_END_MS",
    "CredentialRepository",
    "Proof",
    "Revocation",
    "StoredToken",
    "TokenKind",
    "grants_json",
    "parse_grants",
    "session_mark",
]

KEPT_AFTER_ITS_END_MS: Final = 400 * 86_400 * 1_000
"""How long a revocation outlives what it revokes, by the clock of whoever revokes next.

A clock that is a year ahead for a moment must not have it forgotten: when the clock is right again, the token is still good.
One costs about a hundred bytes.
"""


class TokenKind(StrEnum):
    """What a token is for: a program's key, or a link that people open."""

    KEY = "key"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """One token. `grants` None: everything that `owner` has. `parent` is the id of the token that it was handed on with.

    The `id` of one that was made with another credential than a stored token ends with the `session_mark` of that.
    """

    id: str
    hash: bytes = field(repr=False)
    kind: TokenKind
    tenant: str
    owner: str
    actor: str
    grants: tuple[Grant, ...] | None
    created_ms: int
    expires_ms: int | None = None
    parent: str | None = None

    def live(self, now_ms: int) -> bool:
        """Whether its time is not over."""
        return self.expires_ms is None or self.expires_ms > now_ms

    def ends_with(self, revocation: Revocation) -> bool:
        """Whether it was made with a credential that this revokes."""
        if self.tenant != revocation.tenant:
            return False
        if revocation.jti is not None:
            return self.id.endswith(session_mark(revocation.jti))
        return self.owner == revocation.subject and "-" in self.id and self.created_ms < revocation.before_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Tokens of the identity provider that are no longer good: the one with the id `jti`, or a subject's older ones.

    Exactly one of `jti` and `subject` is given; with `subject`, what was issued before `before_ms`. It may be forgotten after
    `until_ms`, when all that it concerns has expired; None: never.
    """

    tenant: str
    jti: str | None = None
    subject: str | None = None
    before_ms: int = 0
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody came with, as far as it can be revoked.

    `token` is the id of a stored token; `jti` that of a token of the identity provider, for `subject`, issued at `issued_ms`
    (None: it does not say, and is older than anything).
    """

    tenant: str
    subject: str
    token: str | None = None
    jti: str | None = None
    issued_ms: int | None = None


class CredentialRepository(Protocol):
    """Keeps tokens and revocations. What returns is as durable as any write; raises the store's typed errors."""

    async def put_token(self, token: StoredToken, *, at_most: int) -> bool:
        """Keep a new token; False, and nothing is kept, when its owner has `at_most` live ones. Expired ones are dropped.

        False too when its parent is gone: what was handed on ends with that.
        """
        ...

    async def token_by_hash(self, digest: bytes) -> StoredToken | None:
        """The token whose secret has this SHA-256, also when its time is over."""
        ...

    async def list_tokens(
        self, principal: Principal, *, parent: str | None = None, limit: int, after: str | None
    ) -> Page[StoredToken]:
        """The tokens for the principal's things, newest first, in pages; with `parent` those handed on directly with that."""
        ...

    async def delete_token(self, principal: Principal, token: str, *, parent: str | None = None) -> bool:
        """Drop a token for the principal's things and all that were handed on with it; whether it was there.

        With `parent` only one that was handed on directly with that.
        """
        ...

    async def revoke(self, revocation: Revocation, now_ms: int) -> None:
        """Keep a revocation; idempotent. Those whose end is past by `KEPT_AFTER_ITS_END_MS` are forgotten.

        The stored tokens that were made with what it revokes go with it, and all that were handed on with them.
        """
        ...

    async def revoked(self, proofs: Collection[Proof]) -> frozenset[Proof]:
        """Those of `proofs` that are good for nothing any more, in one read."""
        ...


class _Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    name: str
    verbs: list[Verb]
    prefix: bool = False
    epoch: int | None = None


def session_mark(credential: str) -> str:
    """How the ids end of the tokens that were made with `credential`, which is no stored token itself."""
    return "-" + hashlib.sha256(credential.encode()).hexdigest()[:16]


def grants_json(grants: tuple[Grant, ...] | None) -> str | None:
    """Grants as they are stored."""
    if grants is None:
        return None
    rows = [_Grant(name=g.name, verbs=sorted(g.verbs), prefix=g.prefix, epoch=g.epoch) for g in grants]
    return msgspec.json.encode(rows).decode()


def parse_grants(text: str | None) -> tuple[Grant, ...] | None:
    """Grants as they were stored; `CorruptError` for what is none: never more than was granted."""
    if text is None:
        return None
    try:
        rows = msgspec.json.decode(text, type=list[_Grant])
    except msgspec.DecodeError:
        raise CorruptError("the grants of a token cannot be read") from None
    return tuple(Grant(row.name, frozenset(row.verbs), prefix=row.prefix, epoch=row.epoch) for row in rows)
