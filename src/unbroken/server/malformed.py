"""HTTP requests that cannot be read, or that two parsers would read differently, answered as every other error is.

`unbroken serve` and `unbroken mcp --http` give uvicorn what is made of `HttpProtocol`. An application that serves the routes
itself keeps its own server's answer.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unbroken.errors import ProtocolError
from unbroken.server.headers import SECURITY
from unbroken.server.problems import problem_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["HttpProtocol", "ambiguity"]

logger = logging.getLogger(__name__)

VERSIONS: Final = frozenset({"1.0", "1.1"})


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, but for its answer to what is not HTTP, and for what it takes for a request and its headers.

    What a proxy in front may have read differently is refused before anything of it is done, and ends the connection. White
    space behind a header's value is no part of it (RFC 9110, 5.5), fields behind a body are no headers (6.5.1). Nothing is
    written into a response that has begun, or before one that is to come: its missing end tells.
    """

    _head_is_read = False

    def on_message_begin(self) -> None:
        self._head_is_read = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_is_read:
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self._head_is_read = True
        upgrades = self.parser.should_upgrade() and self._should_upgrade()
        found = ambiguity(self.parser.get_http_version(), self.url, self.headers, upgrades=upgrades)
        if found is not None:
            raise ValueError(found)  # the parser's caller answers 400
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        logger.debug("a request could not be read: %s", msg)
        newest = cast("RequestResponseCycle | None", self.cycle)
        if newest is None or newest.response_complete:
            self._tell()
        elif not self.pipeline and not newest.response_started:
            newest.disconnected = True  # it is answered here
            newest.message_event.set()
            self._tell()
        self.transport.close()

    def _tell(self) -> None:
        problem = problem_response(ProtocolError("this is not a request of HTTP/1.1"), headers=SECURITY)
        self.transport.write(_whole(problem))


def ambiguity(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], *, upgrades: bool) -> str | None:
    """Why proxies do not agree on what this head means: where its body ends, whom or what it is for; None where they do.

    What the parser refuses by itself (RFC 9112: line ends, white space, two lengths) never comes here. `upgrades`: it is the
    handshake of a WebSocket.
    """
    if version not in VERSIONS:
        return "it is neither HTTP/1.1 nor HTTP/1.0"
    if b"#" in target:
        return "a fragment is no part of a request"
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return "there is not one Host"
    absolute = not target.startswith((b"/", b"*"))
    if absolute and _authority(target) != (hosts[0].lower() if hosts else None):
        return "the request and its Host name different servers"
    if b"%" in _route(target):
        return "it hides where it goes"
    return _of_body(version, headers, upgrades=upgrades)


def _route(target: bytes) -> bytes:
    """The two segments of its path that say what is asked; names, which may need percent-encoding, come behind them."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return b"/".join(path.split(b"/", 3)[:3])


def _of_body(version: str, headers: Sequence[tuple[bytes, bytes]], *, upgrades: bool) -> str | None:
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        return "its body is not sent as chunks alone"
    lengths = [value for name, value in headers if name == b"content-length"]
    if upgrades and (version == "1.0" or codings or any(length.strip(b"0") for length in lengths)):
        return "a handshake is of HTTP/1.1 and has no body"
    return None


def _authority(target: bytes) -> bytes | None:
    """Whom a target in absolute form names (RFC 9112, 3.2.2); None when it is no address of HTTP."""
    scheme, separator, rest = target.lower().partition(b"://")
    if not separator or scheme not in {b"http", b"https"}:
        return None
    return rest.partition(b"/")[0].partition(b"?")[0]


def _whole(response: Response) -> bytes:
    """`response` as it goes over the wire, the last one of its connection."""
    status = HTTPStatus(response.status_code)
    lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode())]
    lines += [b"%b: %b" % header for header in [*response.raw_headers, (b"connection", b"close")]]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
