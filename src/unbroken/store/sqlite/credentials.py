"""Tokens and revocations in the SQLite database: what a transaction of theirs does.

The writer and the readers of the store call it on their own threads, within a transaction or a snapshot. It commits nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import msgspec

from unbroken.identity import Principal
from unbroken.store.base import Page
from unbroken.store.listing import page, parse_token
from unbroken.store.queries import load_queries
from unbroken.store.sqlite.connection import Connection, Row
from unbroken.store.tokens import (
    KEPT_AFTER_ITS_END_MS,
    Proof,
    Revocation,
    StoredToken,
    TokenKind,
    grants_json,
    parse_grants,
    session_mark,
)

__all__ = ["delete_token", "list_tokens", "put_token", "revoke", "revoked", "token_by_hash"]

QUERIES = load_queries("sqlite")


def put_token(connection: Connection, token: StoredToken, at_most: int) -> bool:
    """As `CredentialRepository.put_token`."""
    owner = (token.tenant, token.owner)
    connection.run(QUERIES["token_drop_expired"], (*owner, token.created_ms))
    counted = connection.one(QUERIES["token_count"], owner)
    if counted is None or cast("int", counted[0]) >= at_most:
        return False
    if token.parent is not None and connection.one(QUERIES["token_known"], (token.parent,)) is None:
        return False
    facts = (token.actor, grants_json(token.grants), token.created_ms, token.expires_ms, token.parent)
    connection.run(QUERIES["token_put"], (token.id, token.hash, token.kind.value, *owner, *facts))
    return True


def token_by_hash(connection: Connection, digest: bytes) -> StoredToken | None:
    """As `CredentialRepository.token_by_hash`."""
    row = connection.one(QUERIES["token_by_hash"], (digest,))
    return None if row is None else _token(row)[1]


def list_tokens(
    connection: Connection, principal: Principal, parent: str | None, limit: int, after: str | None
) -> Page[StoredToken]:
    """As `CredentialRepository.list_tokens`."""
    values = (principal.tenant, principal.subject, parse_token(after), limit + 1, parent)
    rows = [_token(row) for row in connection.all(QUERIES["tokens_by_owner"], values)]
    found = page(rows, limit, lambda row: row[0])
    return Page(tuple(token for _, token in found.items), found.next)


def delete_token(connection: Connection, principal: Principal, token: str, parent: str | None) -> bool:
    """As `CredentialRepository.delete_token`; what was handed on goes by the table's own rule."""
    connection.run(QUERIES["token_delete"], (principal.tenant, principal.subject, token, parent))
    return connection.changes() > 0


def revoke(connection: Connection, revocation: Revocation, now_ms: int) -> None:
    """As `CredentialRepository.revoke`."""
    kind, value = ("subject", revocation.subject) if revocation.jti is None else ("jti", revocation.jti)
    assert value is not None, "a revocation is of a token or of a subject"
    connection.run(QUERIES["revocations_forget"], (now_ms - KEPT_AFTER_ITS_END_MS,))
    connection.run(
        QUERIES["revocation_put"], (revocation.tenant, kind, value, revocation.before_ms, revocation.until_ms)
    )
    if revocation.jti is not None:
        connection.run(QUERIES["tokens_of_session_delete"], (revocation.tenant, session_mark(revocation.jti)))
    else:
        connection.run(QUERIES["tokens_of_sessions_delete"], (revocation.tenant, value, revocation.before_ms))


def revoked(connection: Connection, proofs: Collection[Proof]) -> frozenset[Proof]:
    """As `CredentialRepository.revoked`."""
    asked = list(proofs)
    rows = [(proof.tenant, proof.subject, proof.token, proof.jti, proof.issued_ms) for proof in asked]
    found = connection.all(QUERIES["revoked"], (msgspec.json.encode(rows).decode(),))
    return frozenset(asked[cast("int", row[0])] for row in found)


def _token(row: Row) -> tuple[int, StoredToken]:
    number, token, digest, kind, tenant, owner, actor, grants, created_ms, expires_ms, parent = row
    return cast("int", number), StoredToken(
        id=cast("str", token),
        hash=cast("bytes", digest),
        kind=TokenKind(cast("str", kind)),
        tenant=cast("str", tenant),
        owner=cast("str", owner),
        actor=cast("str", actor),
        grants=parse_grants(cast("str | None", grants)),
        created_ms=cast("int", created_ms),
        expires_ms=cast("int | None", expires_ms),
        parent=cast("str | None", parent),
    )
