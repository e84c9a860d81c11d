"""What every HTTP request passes before a route sees it, and the headers that every response carries.

`ProblemMiddleware` calls it: Host and Origin, preflights, whether this server takes work now, and the bound of a body. It
decides and counts; it never answers with anything but a preflight, and knows nothing of streams.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response

from unbroken.auth.access import Access, header
from unbroken.errors import DrainingError, ForbiddenOriginError, InvalidError, LifespanError, TooLargeError
from unbroken.server.departure import unless
from unbroken.server.headers import SECURITY, with_missing
from unbroken.server.undelivered import TAKEN_BYTES_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from unbroken.limits import Limits
    from unbroken.server.services import Services

__all__ = ["Inbound", "Reply", "announces_more", "check", "lingering", "reply_headers", "route_path"]

PROBES: Final = frozenset({"/livez", "/readyz"})
"""Asked by machines under any host name; they tell nothing that is worth hiding."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
    "Access-Control-Max-Age": "600",
}


class Reply:
    """The way of a response to the server: adds the headers that are not set, and knows whether it has begun.

    `watch` is called before and after a large piece.
    """

    def __init__(self, send: Send, headers: dict[str, str], watch: Callable[[], None]) -> None:
        self._send = send
        self._headers = headers
        self._watch = watch
        self.started = False

    async def send(self, message: Message) -> None:
        """Pass `message` on."""
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": with_missing(message.get("headers", ()), self._headers)}
        elif len(message.get("body", b"")) >= TAKEN_BYTES_MIN:
            self._watch()
            await self._send(message)
            self._watch()
            return
        await self._send(message)


class Inbound:
    """The way of a request's body to its route: never more than `body_bytes_max` bytes, however it is sent."""

    def __init__(self, receive: Receive, limits: Limits, *, waits: bool) -> None:
        self.source = receive
        self._limits = limits
        self.sourced = 0
        self.complete = waits
        """Whether nothing more comes by itself; so also where the peer waits to be asked for the body."""

    async def receive(self) -> Message:
        """The next part; `TooLargeError` as soon as there are too many bytes."""
        message = await self._next()
        if self.sourced > self._limits.body_bytes_max:
            raise _too_large(self._limits.body_bytes_max)
        return message

    async def discard(self) -> None:
        """Take the rest of the body and forget it, within `discard_bytes_max` and `discard_seconds_max`."""
        most = self.sourced + self._limits.discard_bytes_max
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.discard_seconds_max):
                while not self.complete and self.sourced < most:
                    await self._next()

    async def _next(self) -> Message:
        message = await self.source()
        self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        self.sourced += len(message.get("body", b""))
        return message


def lingering(response: ASGIApp, inbound: Inbound, stopping: asyncio.Event, answered: Callable[[], None]) -> ASGIApp:
    """`response`, sent whole at once, and ended when the rest of the request's body was discarded or the server stops.

    `answered` is called in between.
    Who sends a body may read nothing before all of it is sent, and a socket that is closed with bytes unread takes the
    response away from its peer.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def unended(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await response(scope, receive, unended)
        answered()
        await unless(stopping.wait, inbound.discard())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return answer


def reply_headers(scope: Scope, access: Access) -> dict[str, str]:
    """What each response to this request carries unless its route says otherwise; CORS for allowed origins only."""
    headers = dict(SECURITY)
    if not access.allow_origins:
        return headers
    headers["Vary"] = "Origin"
    origin = Headers(scope=scope).get("origin")
    if origin is not None and access.allowed_origin(origin):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = "*"
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return headers


def check(scope: Scope, services: Services) -> Response | None:
    """Let the request in (None), answer it at once, or raise the error that keeps it out."""
    path = route_path(scope)
    headers = Headers(scope=scope)
    method: str = scope["method"]
    if path in PROBES:
        return None
    services.access.check_peer(scope.get("unbroken.peer"))
    services.access.check_host(headers, scope.get("server"))
    changes = method not in SAFE_METHODS
    services.access.check_origin(headers, scheme=scope.get("scheme", "http"), changes_state=changes)
    if method == "OPTIONS" and header(headers, "access-control-request-method") is not None:
        return _preflight(headers)
    if path == "":
        return RedirectResponse(_with_slash(scope), status_code=307)
    _check_path(scope)
    if path.startswith("/v1/"):
        if not services.started:
            raise LifespanError
        if services.draining and changes:
            raise DrainingError
    if announces_more(headers, services.limits.body_bytes_max):
        raise _too_large(services.limits.body_bytes_max)
    return None


def announces_more(headers: Headers, bytes_max: int) -> bool:
    """Whether the request says that its body has more than `bytes_max` bytes."""
    length = header(headers, "content-length")
    return length is not None and length.isdecimal() and int(length[:20]) > bytes_max


def route_path(scope: Scope) -> str:
    """The path below the place where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path


def _preflight(headers: Headers) -> Response:
    wanted = header(headers, "access-control-request-headers")
    allowed = {"Access-Control-Allow-Headers": wanted} if wanted and len(wanted) <= 1024 else {}
    if header(headers, "origin") is None:
        raise ForbiddenOriginError("a preflight names its origin")
    return Response(status_code=204, headers={**PREFLIGHT, **allowed})


def _with_slash(scope: Scope) -> str:
    """Where the mounted application begins, relative to the path without its slash."""
    segment = scope["path"].rpartition("/")[2]
    return f"./{segment}/"


def _check_path(scope: Scope) -> None:
    """The path is UTF-8 without control characters: what a server decoded leniently must not name something else."""
    encoded = scope.get("raw_path")
    raw = unquote_to_bytes(encoded) if encoded else scope["path"].encode(errors="surrogatepass")
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        raise InvalidError("a path has no control characters", field="name")
    try:
        raw.decode()
    except UnicodeDecodeError:
        raise InvalidError("a path is percent-encoded UTF-8", field="name") from None


def _too_large(bytes_max: int) -> TooLargeError:
    return TooLargeError(f"a body has at most {bytes_max} bytes", limit="body_bytes_max")
