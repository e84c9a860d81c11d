"""The credential of a live connection: what the peer is told of it, and how a newer one takes its place.

A connection calls it for its `hello` and for an `auth` frame. It keeps nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbroken import __version__
from unbroken.errors import UnauthorizedError
from unbroken.identity import Principal
from unbroken.protocol.frames import PROTOCOL, Authorized, Hello

if TYPE_CHECKING:
    from unbroken.server.services import Services

__all__ = ["authorized", "greeting", "renewed"]


def greeting(services: Services, connection: str, principal: Principal) -> Hello:
    """The first frame of a connection."""
    limits = services.limits
    return Hello(
        protocol=PROTOCOL,
        server=__version__,
        connection=connection,
        heartbeat_seconds=limits.heartbeat_seconds,
        silence_seconds=limits.silence_seconds_max,
        frame_bytes_max=limits.frame_bytes_max,
        message_bytes_max=limits.message_bytes_max,
        append_messages_max=limits.append_messages_max,
        expires_seconds=_remaining_seconds(services, principal),
    )


async def renewed(services: Services, present: Principal, token: str) -> Principal:
    """Whose `token` it is, when that is whose connection it is; else `UnauthorizedError`, and nothing has changed."""
    found = await services.callers.of_token(token)
    if (found.tenant, found.subject) != (present.tenant, present.subject):
        raise UnauthorizedError("the token is somebody else's than the connection")
    return found


def authorized(services: Services, number: int, principal: Principal) -> Authorized:
    """The answer to an `auth` frame that took effect."""
    return Authorized(id=number, expires_seconds=_remaining_seconds(services, principal))


def _remaining_seconds(services: Services, principal: Principal) -> float | None:
    """For how long its credential is good; None where it has no end."""
    if principal.expires_ms is None:
        return None
    return max(principal.expires_ms - services.clock.now_ms(), 0) / 1000
