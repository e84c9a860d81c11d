"""Tokens over HTTP: handing on a narrowed right, seeing what was handed on, and taking it back (PROTOCOL.md 2).

`http.routes` mounts the handlers. What may be handed on is decided by `StoredTokens`; a secret is in one answer and no other.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from unbroken.auth.stored import NewToken, credential_of, made_event
from unbroken.errors import InvalidError
from unbroken.identity import Grant, Verb
from unbroken.messages import NUMBER_MAX
from unbroken.observe.audit_events import TokenRevoked
from unbroken.protocol.views import GrantView, TokenView
from unbroken.server.resource import Body, Call, Whole, json_response
from unbroken.store.tokens import StoredToken, TokenKind

__all__ = ["delete_token", "list_tokens", "make_token"]

PAGE_ITEMS = 100
NO_STORE = "no-store"


class TokenBody(Body, frozen=True, kw_only=True):
    """What a token shall be; without `grants` all that whoever asks has, `expires_in` in seconds."""

    kind: TokenKind = TokenKind.KEY
    label: str = ""
    grants: list[GrantView] | None = None
    expires_in: Whole | None = None


async def make_token(call: Call) -> Response:
    body = await call.body(TokenBody)
    services, grants = call.services, body.grants
    made = await services.tokens.make(
        call.principal,
        NewToken(
            kind=body.kind,
            label=services.streams.redacted_text(body.label),
            grants=None if grants is None else tuple(map(_grant, grants)),
            expires_ms=_expiry(services.clock.now_ms(), body.expires_in),
        ),
    )
    services.audit.record(made_event(made.token, call.principal))
    answer = {"token": made.secret, **msgspec.to_builtins(_view(made.token))}
    response = json_response(answer, 201)
    response.headers["cache-control"] = NO_STORE
    return response


async def list_tokens(call: Call) -> Response:
    query = call.query("limit", "page")
    limit = query.whole("limit", PAGE_ITEMS)
    page = await call.services.tokens.list(call.principal, limit=limit, page=query.text("page"))
    return json_response({"tokens": [_view(token) for token in page.items], "next": page.next})


async def delete_token(call: Call) -> Response:
    """Revoke; whoever is connected with it is sent away."""
    services, name = call.services, call.name
    await services.tokens.delete(call.principal, name)
    credential = credential_of(name)
    services.tickets.forget(credential)
    services.live.expel(credential)
    services.audit.record(
        TokenRevoked(
            credential=credential, tenant=call.principal.tenant, owner=call.principal.subject, by=call.principal
        )
    )
    return Response(status_code=204)


def _view(token: StoredToken) -> TokenView:
    grants = token.grants
    return TokenView(
        id=token.id,
        kind=token.kind.value,
        label=token.actor,
        grants=None
        if grants is None
        else [
            GrantView(name=grant.name, verbs=sorted(grant.verbs), prefix=grant.prefix, epoch=grant.epoch)
            for grant in grants
        ],
        created=token.created_ms,
        expires=token.expires_ms,
    )


def _grant(view: GrantView) -> Grant:
    try:
        verbs = frozenset(map(Verb, view.verbs))
    except ValueError:
        raise InvalidError(f"verbs are {', '.join(Verb)}", field="grants.verbs") from None
    return Grant(view.name, verbs, prefix=view.prefix, epoch=view.epoch)


def _expiry(now_ms: int, seconds: int | None) -> int | None:
    """When a token ends, as a number that every client can hold."""
    return None if seconds is None else min(now_ms + seconds * 1000, NUMBER_MAX)
