"""The rules of who may come in, and the Host and Origin of a request.

The HTTP guard and the WebSocket handshake ask it before anything else happens; who is asking is found by `callers`, by these
rules. It decides from header values alone, opens nothing and remembers nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from unbroken.errors import ConfigurationError, ForbiddenOriginError, InvalidError

if TYPE_CHECKING:
    from unbroken.auth.callers import Identify
    from unbroken.auth.forwarded import Proxies
    from unbroken.auth.provider import IdentityProvider

__all__ = ["Access", "HeaderValues"]

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
SECURE: Final = {"ws": "http", "wss": "https"}
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([1-9][0-9]{0,4}))?", re.ASCII)


class HeaderValues(Protocol):
    """The headers of one request; lookup ignores case."""

    def get(self, key: str, /) -> str | None: ...


@runtime_checkable
class _WithLists(Protocol):
    """Headers that give the first of several values and would hide the others."""

    def getlist(self, key: str) -> list[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rules of one server.

    `token`, `provider`, `identify`: the shared token, the user's identity provider, the application's own answer; with any
    of them every entry but health and the page's files wants a credential. `anonymous`: it does not, and whoever has none
    is the principal of that name. `exposed`: others than this machine can reach it, so nobody gets in without.
    `proxies`: who stands in front of it.

    `allow_origins`: origins as a browser writes them (`https://app.example`). `allow_hosts`: `name` (any port) or
    `name:port`, or `*` for any; the loopback names on the port we listen on always are. `embedded`: part of somebody else's
    application, which decides about hosts; then any Host is taken, and an Origin belongs to it whatever its scheme.
    """

    token: str | None = field(default=None, repr=False)
    provider: IdentityProvider | None = None
    identify: Identify | None = None
    anonymous: bool = False
    exposed: bool = False
    proxies: Proxies | None = None
    allow_origins: frozenset[str] = frozenset()
    allow_hosts: frozenset[str] = frozenset()
    embedded: bool = False

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise ConfigurationError("an empty token protects nothing: set a token, or none", setting="token")

    @property
    def unguarded(self) -> bool:
        """Whether nothing is set up and only this machine can ask: then whoever comes without credentials owns all."""
        set_up = self.token is not None or self.provider is not None or self.identify is not None
        return not (set_up or self.anonymous or self.exposed)

    def check_peer(self, peer: str | None) -> None:
        """`ForbiddenOriginError` for who should come through a proxy and does not; `peer` is who the connection is from."""
        if self.proxies is not None and peer is not None:
            self.proxies.check_peer(peer)

    def check_host(self, headers: HeaderValues, server: tuple[str, int | None] | None = None) -> None:
        """`ForbiddenOriginError` unless the Host is one of ours (against DNS rebinding).

        `server` is the address that we listen on, as far as it is known; without a port any port of a loopback name
        is ours.
        """
        if self.embedded or "*" in self.allow_hosts:
            return
        host = (header(headers, "host") or "").lower()
        match = _HOST.fullmatch(host)
        if match is None:
            raise ForbiddenOriginError("the request has no valid Host")
        name, port = match[1], match[2]
        if not self.allow_hosts.isdisjoint({host, name, name.strip("[]")}):
            return
        ours = None if server is None else server[1]
        if name in LOOPBACK_NAMES and (ours is None or int(port or 80) == ours):
            return
        raise ForbiddenOriginError(f"the host {host} is not one of this server's", host=host)

    def check_origin(self, headers: HeaderValues, *, scheme: str | None, changes_state: bool) -> None:
        """`ForbiddenOriginError` when a page of another origin asks.

        `scheme` is how the request came in (None: not known, so either is taken). A request without an Origin is no
        page's, or a page's harmless one; where it changes state, the browser's Sec-Fetch-Site must not deny it.
        """
        origin = header(headers, "origin")
        if origin is not None:
            if not (self.own_origin(origin, headers, scheme) or self.allowed_origin(origin)):
                raise ForbiddenOriginError(f"the origin {origin[:200]} is not allowed", origin=origin[:200])
            return
        site = header(headers, "sec-fetch-site")
        if changes_state and site not in {None, "same-origin", "none"}:
            raise ForbiddenOriginError("a page of another origin may not change anything here")

    def own_origin(self, origin: str, headers: HeaderValues, scheme: str | None) -> bool:
        """Whether `origin` is that of the server's own pages, as this request's Host says."""
        host = (header(headers, "host") or "").lower()
        if not host:
            return False
        if scheme is None or self.embedded:
            schemes: tuple[str, ...] = ("http", "https")
        else:
            schemes = (SECURE.get(scheme, scheme),)
        given = origin.lower()
        return any(_origin(name, given) == _origin(name, f"{name}://{host}") for name in schemes)

    def allowed_origin(self, origin: str) -> bool:
        """Whether `origin` is on the list; `null` never is."""
        return origin != "null" and origin.lower() in self.allow_origins


def header(headers: HeaderValues, name: str) -> str | None:
    """The value of a header that may be there once; `InvalidError` when it is there several times."""
    try:
        if isinstance(headers, _WithLists) and len(headers.getlist(name)) > 1:
            raise LookupError(name)  # what some kinds of headers raise by themselves
        return headers.get(name)
    except LookupError:
        raise InvalidError(f"the header {name} is there more than once", field=name) from None


def _origin(scheme: str, text: str) -> tuple[str, int] | None:
    """`text` as (host, port) when it is an origin of `scheme`."""
    prefix = f"{scheme}://"
    match = _HOST.fullmatch(text.removeprefix(prefix))
    if not text.startswith(prefix) or match is None:
        return None
    return match[1], int(match[2] or DEFAULT_PORTS[scheme])
