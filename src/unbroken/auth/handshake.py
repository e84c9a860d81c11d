"""The decision about a WebSocket handshake: may it come from there, which version is spoken, and whose it is.

The WebSocket faces call it with what the request carries: first `admit`, then `Admission.whose` where that takes its time. It
sends nothing; a refusal is an error whose HTTP status and problem document the caller sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unbroken.auth.access import HeaderValues, header
from unbroken.auth.callers import Callers, Scope
from unbroken.identity import Principal
from unbroken.protocol.negotiation import choose, ticket_of

__all__ = ["Admission", "admit"]


@dataclass(frozen=True, slots=True)
class Admission:
    """A handshake that may go on: for whom, and the one subprotocol to answer with.

    `principal` is None where `whose` has to be asked, which takes its time. `spent` is whose ticket it came with.
    """

    principal: Principal | None
    subprotocol: str
    spent: Principal | None = None

    async def whose(self, headers: HeaderValues, callers: Callers, scope: Scope | None = None) -> Principal:
        """Who is asking; raises as `Callers.principal`. A ticket is worth nothing once its credential is."""
        if self.principal is not None:
            return self.principal
        return await (callers.principal(headers, scope) if self.spent is None else callers.still_good(self.spent))


def admit(
    headers: HeaderValues,
    offered: Sequence[str],
    *,
    callers: Callers,
    scheme: str | None = None,
    server: tuple[str, int | None] | None = None,
    peer: str | None = None,
) -> Admission:
    """Admit the handshake or raise: Host, Origin, version and credentials are checked in this order.

    `scheme` and `server` are the ASGI scope's, `peer` is whom the connection is from; without them either scheme of the
    own origin, any port of a loopback name, and anybody is taken. A ticket is spent only when everything else is right.
    Raises `ForbiddenOriginError`, `VersionError` or `UnauthorizedError`.
    """
    callers.access.check_peer(peer)
    callers.access.check_host(headers, server)
    callers.access.check_origin(headers, scheme=scheme, changes_state=True)
    subprotocol = choose(offered)
    ticket = ticket_of(offered)
    if ticket is None:
        return Admission(callers.at_once(headers), subprotocol)
    return Admission(None, subprotocol, spent=callers.tickets.spend(ticket, header(headers, "origin")))
