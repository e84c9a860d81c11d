"""Which version of the protocol a connection speaks: what a client offers, what a server chooses.

Client and server call it at the handshake. It never looks at a socket: subprotocol names go in and out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unbroken.errors import VersionError
from unbroken.protocol.frames import PROTOCOL

__all__ = ["SUPPORTED", "TICKET_PREFIX", "check", "choose", "offer", "ticket_of"]

SUPPORTED: tuple[str, ...] = (PROTOCOL,)
"""Every version that this package speaks, newest first."""

TICKET_PREFIX = "ticket."
"""A subprotocol that begins so is not a version but the ticket of a browser."""


def offer(ticket: str | None = None) -> list[str]:
    """The subprotocols that a client names: every version that it speaks, then its ticket."""
    return [*SUPPORTED, *([] if ticket is None else [TICKET_PREFIX + ticket])]


def ticket_of(offered: Iterable[str]) -> str | None:
    """The ticket among what a client offered."""
    return next((name.removeprefix(TICKET_PREFIX) for name in offered if name.startswith(TICKET_PREFIX)), None)


def choose(offered: Iterable[str], supported: Sequence[str] = SUPPORTED) -> str:
    """The newest version in common; `VersionError` names both sides' when there is none."""
    versions = [name for name in offered if not name.startswith(TICKET_PREFIX)]
    for version in supported:
        if version in versions:
            return version
    raise _mismatch(client=versions, server=supported)


def check(chosen: str | None, supported: Sequence[str] = SUPPORTED) -> str:
    """What the server chose, if this client speaks it; else `VersionError`."""
    if chosen is not None and chosen in supported:
        return chosen
    raise _mismatch(client=supported, server=[chosen] if chosen else [])


def _mismatch(*, client: Sequence[str], server: Sequence[str]) -> VersionError:
    ours, theirs = (", ".join(names) or "none" for names in (client, server))
    return VersionError(
        f"no protocol version in common: the client speaks {ours}; the server speaks {theirs}",
        client=ours,
        server=theirs,
    )
