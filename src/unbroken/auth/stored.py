"""Tokens of our own: made with a random secret, handed on narrowed, found by the secret's hash, revoked by being deleted.

The HTTP face and the command line make them, the chain of credentials (`auth.callers`) looks them up. A secret is given
out once, by `make`, and is kept nowhere.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from unbroken.clock import Clock
from unbroken.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
    UnauthorizedError,
)
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import Limits
from unbroken.messages import check_name
from unbroken.observe.audit_events import TokenMade
from unbroken.store.base import Page
from unbroken.store.tokens import CredentialRepository, Proof, Revocation, StoredToken, TokenKind, session_mark

__all__ = ["MadeToken", "NewToken", "StoredTokens", "credential_of", "made_event"]

SECRET_BYTES: Final = 32
ID_BYTES: Final = 8
PREFIXES: Final = {TokenKind.KEY: "ubk_", TokenKind.LINK: "ubl_"}
"""How secrets begin, so that whoever finds one knows what it is: our own redaction, and scanners of repositories."""
READ_ONLY: Final = frozenset({Verb.READ})
_SECRET: Final = re.compile(r"ub[kl]_[A-Za-z0-9_-]{43}", re.ASCII)
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_STORED: Final = "token:"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """What a token shall be. `grants` None: everything that whoever makes it has. `label` is who acts with it."""

    kind: TokenKind = TokenKind.KEY
    label: str = ""
    grants: tuple[Grant, ...] | None = None
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A fresh token, and its secret, which nobody can see again."""

    token: StoredToken
    secret: str = field(repr=False)


def credential_of(token_id: str) -> str:
    """How `Principal.credential` names the stored token of that id."""
    return _STORED + token_id


def made_event(token: StoredToken, by: Principal | None) -> TokenMade:
    """What the audit log is told of a token that `by` has made; None: the operator."""
    return TokenMade(
        credential=credential_of(token.id),
        label=token.actor,
        tenant=token.tenant,
        owner=token.owner,
        grants=tuple(map(str, token.grants or ())),
        expires_ms=token.expires_ms,
        by=by,
    )


class StoredTokens:
    """The tokens in a store, and what is revoked there: `auth.credentials.Credentials`."""

    def __init__(self, store: CredentialRepository, *, limits: Limits, clock: Clock) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock

    async def make(self, by: Principal, new: NewToken) -> MadeToken:
        """Make a token for the things of `by`, durably.

        It is never more than what `by` may do and manage, nor for longer: `ForbiddenError` for more, an earlier end for
        longer. Raises `InvalidError` and `TooLargeError` for what cannot be a token, `OverloadedError` for too many.
        """
        now = self._clock.now_ms()
        if by.expires_ms is not None and by.expires_ms <= now:
            raise UnauthorizedError("the credential has expired")
        grants = by.grants if new.grants is None else new.grants
        self._check(by, new, grants, now)
        secret = PREFIXES[new.kind] + secrets.token_urlsafe(SECRET_BYTES)
        ends = [end for end in (new.expires_ms, by.expires_ms) if end is not None]
        token = StoredToken(
            id=secrets.token_hex(ID_BYTES) + _mark(by),
            hash=_hash(secret),
            kind=new.kind,
            tenant=by.tenant,
            owner=by.subject,
            actor=new.label,
            grants=grants,
            created_ms=now,
            expires_ms=min(ends) if ends else None,
            parent=_stored_id(by),
        )
        if not await self._store.put_token(token, at_most=self._limits.tokens_of_owner_max):
            if token.parent is not None and await self.revoked((by,)):
                raise UnauthorizedError("the token was revoked")
            raise OverloadedError("there are too many tokens", limit="tokens_of_owner_max", retry_after_seconds=60)
        if token.parent is None and await self.revoked((by,)):  # while it was being made
            await self._store.delete_token(by, token.id)
            raise UnauthorizedError("the token was revoked")
        return MadeToken(token, secret)

    def _check(self, by: Principal, new: NewToken, grants: tuple[Grant, ...] | None, now: int) -> None:
        limits = self._limits
        if len(new.label) > limits.token_label_characters_max or _UNFIT.search(new.label):
            raise InvalidError(f"a label has at most {limits.token_label_characters_max} characters", field="label")
        if new.label and new.label == by.subject:
            raise InvalidError(
                "a label is not the name of the owner: it tells who acts in the owner's place", field="label"
            )
        if new.expires_ms is not None and new.expires_ms <= now:
            raise InvalidError("a token ends in the future", field="expires")
        if new.kind is TokenKind.LINK:
            self._check_link(new, now)
        if grants is None:
            return
        if len(grants) > limits.token_grants_max:
            raise TooLargeError(f"a token has at most {limits.token_grants_max} grants", limit="token_grants_max")
        for grant in grants:
            self._check_grant(grant)
            if not by.may_hand_on(grant):
                raise ForbiddenError(
                    "that is more than what may be handed on with this credential", verb=Verb.MANAGE.value
                )

    def _check_link(self, new: NewToken, now: int) -> None:
        longest = self._limits.link_seconds_max
        if not new.grants or any(grant.verbs != READ_ONLY for grant in new.grants):
            raise InvalidError("a link is for reading, and says what", field="grants")
        if new.expires_ms is None or new.expires_ms - now > longest * 1000:
            raise InvalidError(f"a link ends after {longest:g} seconds at most", field="expires")

    def _check_grant(self, grant: Grant) -> None:
        if not grant.verbs:
            raise InvalidError("a grant has at least one verb", field="grants.verbs")
        if not grant.prefix:
            check_name(grant.name, self._limits)
        elif len(grant.name.encode(errors="replace")) > self._limits.name_bytes_max or _UNFIT.search(grant.name):
            raise InvalidError("the beginning of a name is not one that a name can have", field="grants.name")
        if grant.epoch is not None and not 0 <= grant.epoch < 2**53:
            raise InvalidError("an epoch is 0 to 2**53 - 1", field="grants.epoch")

    async def list(self, principal: Principal, *, limit: int, page: str | None) -> Page[StoredToken]:
        """The tokens for the owner's things, newest first; one who is not the owner sees those handed on with its own."""
        if limit < 1:
            raise InvalidError("a page has at least one item", field="limit")
        limit = min(limit, self._limits.page_items_max)
        if principal.grants is None:
            return await self._store.list_tokens(principal, limit=limit, after=page)
        parent = _stored_id(principal)
        if parent is None:
            return Page((), None)
        return await self._store.list_tokens(principal, parent=parent, limit=limit, after=page)

    async def delete(self, principal: Principal, token: str) -> None:
        """Revoke a token, and all that were handed on with it: one of the owner's, one's own, or one handed on with that.

        `NotFoundError` for any other, whether there is one or not.
        """
        own = _stored_id(principal)
        parent = None if principal.grants is None or token == own else own or ""
        if not await self._store.delete_token(principal, token, parent=parent):
            raise NotFoundError(f"no token {token!r}", token=token)

    # --- the chain of credentials -------------------------------------------------------------------------------------

    async def principal_of_token(self, secret: str) -> Principal | None:
        """Whose stored token `secret` is; None for what is no token, or none any more. Its end is the caller's to look at."""
        if not _SECRET.fullmatch(secret):
            return None
        token = await self._store.token_by_hash(_hash(secret))
        if token is None:
            return None
        return Principal(
            token.tenant,
            token.owner,
            actor=token.actor or credential_of(token.id),
            grants=token.grants,
            credential=credential_of(token.id),
            expires_ms=token.expires_ms,
        )

    async def revoked(self, principals: Collection[Principal]) -> frozenset[str]:
        """The credentials of those of `principals` that are good for nothing any more, in one read."""
        proofs = {_proof(principal): principal.credential for principal in principals if principal.credential}
        if not proofs:
            return frozenset()
        return frozenset(proofs[proof] for proof in await self._store.revoked(tuple(proofs)))

    async def revoke(self, principal: Principal) -> None:
        """From now on the credential of `principal` is good for nothing, and no token that was made with it. Idempotent."""
        token = _stored_id(principal)
        if token is not None:
            await self._store.delete_token(principal, token)
        elif principal.credential:
            revocation = Revocation(tenant=principal.tenant, jti=principal.credential, until_ms=principal.expires_ms)
            await self._store.revoke(revocation, self._clock.now_ms())

    async def revoke_subject(self, tenant: str, subject: str) -> None:
        """Every token of the identity provider that this subject has by now is good for nothing from here on.

        So is every stored one that was made with such a token; not those that the operator made.
        """
        now = self._clock.now_ms()
        await self._store.revoke(Revocation(tenant=tenant, subject=subject, before_ms=now), now)


def _stored_id(principal: Principal) -> str | None:
    """The id of the stored token that the principal came with."""
    found = principal.credential
    return found.removeprefix(_STORED) if found.startswith(_STORED) else None


def _mark(principal: Principal) -> str:
    """What binds the tokens that the principal makes to the credential that it came with, where that can be revoked."""
    found = principal.credential
    return "" if not found or found == "token" or found.startswith(_STORED) else session_mark(found)


def _proof(principal: Principal) -> Proof:
    token = _stored_id(principal)
    if token is not None:
        return Proof(principal.tenant, principal.subject, token=token)
    return Proof(principal.tenant, principal.subject, jti=principal.credential, issued_ms=principal.issued_ms)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
