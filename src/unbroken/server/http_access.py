"""Tickets and logging out over HTTP: the rows of PROTOCOL.md 2 about the credential that a request comes with.

`http.routes` mounts the handlers. A ticket is issued by `Tickets`, a credential revoked by `Credentials`.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from unbroken.errors import ForbiddenError, InvalidError
from unbroken.server.resource import Body, Call, json_response

__all__ = ["issue_ticket", "log_out"]

SHARED: Final = frozenset({"", "token"})
"""Credentials that are nobody's own: none, and the shared token of the settings."""


class TicketBody(Body, frozen=True, kw_only=True):
    origin: str | None = None


async def issue_ticket(call: Call) -> Response:
    """A ticket for one WebSocket handshake, or one reading request, of the asking page.

    A program that is no page may ask for one for a page of its own: then it says from which origin.
    """
    body = await call.body(TicketBody)
    services, origin = call.services, call.headers.get("origin")
    if body.origin is not None and body.origin != origin:
        if origin is not None:
            raise InvalidError("a page gets tickets for itself only", field="origin")
        if not services.access.allowed_origin(body.origin):
            raise InvalidError("the origin is not one of --allow-origin", field="origin")
        origin = body.origin
    ticket = services.tickets.issue(call.principal, origin)
    return json_response({"ticket": ticket, "expires_in": round(services.limits.ticket_seconds)}, 201)


async def log_out(call: Call) -> Response:
    """Revoke the credential of this request for good, void its tickets, and send away who is connected with it."""
    await call.body(Body)
    principal, services = call.principal, call.services
    if principal.credential in SHARED:
        raise InvalidError("there is nothing to log out from: this is no credential of your own", field="authorization")
    if principal.grants is not None:
        raise ForbiddenError("a token that was handed on is revoked by who handed it on")
    await services.end_credential(principal)
    return Response(status_code=204)
