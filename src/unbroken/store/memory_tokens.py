"""Tokens and revocations in memory: the half of `MemoryStore` that is about who may come in.

`MemoryStore` inherits it. It knows nothing of streams.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count
from threading import Lock

from unbroken.identity import Principal
from unbroken.store.base import Page
from unbroken.store.listing import page, parse_token
from unbroken.store.tokens import KEPT_AFTER_ITS_END_MS, Proof, Revocation, StoredToken

__all__ = ["MemoryCredentials"]


class MemoryCredentials:
    """A `CredentialRepository` without storage."""

    def __init__(self) -> None:
        self._token_lock = Lock()
        self._token_rows: dict[str, tuple[int, StoredToken]] = {}
        self._token_numbers = count(1)
        self._revoked: dict[tuple[str, str, str], Revocation] = {}

    async def put_token(self, token: StoredToken, *, at_most: int) -> bool:
        with self._token_lock:
            owner = (token.tenant, token.owner)
            mine = [old for _, old in self._token_rows.values() if (old.tenant, old.owner) == owner]
            for old in mine:
                if not old.live(token.created_ms):
                    self._drop_token(old.id)
            alive = sum(old.id in self._token_rows for old in mine)
            if alive >= at_most or (token.parent is not None and token.parent not in self._token_rows):
                return False
            self._token_rows[token.id] = (next(self._token_numbers), token)
            return True

    async def token_by_hash(self, digest: bytes) -> StoredToken | None:
        with self._token_lock:
            return next((token for _, token in self._token_rows.values() if token.hash == digest), None)

    async def list_tokens(
        self, principal: Principal, *, parent: str | None = None, limit: int, after: str | None
    ) -> Page[StoredToken]:
        before = parse_token(after)
        with self._token_lock:
            found = [
                (number, token)
                for number, token in reversed(self._token_rows.values())
                if number < before and _is_of(token, principal, parent)
            ]
        rows = page(found[: limit + 1], limit, lambda row: row[0])
        return Page(tuple(token for _, token in rows.items), rows.next)

    async def delete_token(self, principal: Principal, token: str, *, parent: str | None = None) -> bool:
        with self._token_lock:
            found = self._token_rows.get(token)
            if found is None or not _is_of(found[1], principal, parent):
                return False
            self._drop_token(token)
            return True

    def _drop_token(self, token: str) -> None:
        """The token and everything that was handed on with it."""
        self._token_rows.pop(token, None)
        for child in [row.id for _, row in self._token_rows.values() if row.parent == token]:
            self._drop_token(child)

    async def revoke(self, revocation: Revocation, now_ms: int) -> None:
        kind, value = ("subject", revocation.subject) if revocation.jti is None else ("jti", revocation.jti)
        assert value is not None, "a revocation is of a token or of a subject"
        key = (revocation.tenant, kind, value)
        with self._token_lock:
            ended_ms = now_ms - KEPT_AFTER_ITS_END_MS
            over = [
                name for name, old in self._revoked.items() if old.until_ms is not None and old.until_ms <= ended_ms
            ]
            for name in over:
                del self._revoked[name]
            old = self._revoked.get(key)
            self._revoked[key] = revocation if old is None else _joined(old, revocation)
            for token in [row for _, row in self._token_rows.values() if row.ends_with(revocation)]:
                self._drop_token(token.id)

    async def revoked(self, proofs: Collection[Proof]) -> frozenset[Proof]:
        with self._token_lock:
            return frozenset(proof for proof in proofs if self._is_revoked(proof))

    def _is_revoked(self, proof: Proof) -> bool:
        if proof.token is not None and proof.token not in self._token_rows:
            return True
        if proof.jti is None:
            return False
        if (proof.tenant, "jti", proof.jti) in self._revoked:
            return True
        older = self._revoked.get((proof.tenant, "subject", proof.subject))
        return older is not None and older.before_ms > (-1 if proof.issued_ms is None else proof.issued_ms)


def _is_of(token: StoredToken, principal: Principal, parent: str | None) -> bool:
    owner = (token.tenant, token.owner) == (principal.tenant, principal.subject)
    return owner and parent in {None, token.parent}


def _joined(old: Revocation, new: Revocation) -> Revocation:
    ends = (old.until_ms, new.until_ms)
    return Revocation(
        tenant=new.tenant,
        jti=new.jti,
        subject=new.subject,
        before_ms=max(old.before_ms, new.before_ms),
        until_ms=None if None in ends else max(end for end in ends if end is not None),
    )
