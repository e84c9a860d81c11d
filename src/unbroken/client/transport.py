"""Opens one WebSocket and says, when that fails, whether it is worth trying again.

`Link` calls it for each connection. It never retries and never looks at a frame.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl as tls
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from unbroken.clock import Clock
from unbroken.errors import (
    ForbiddenOriginError,
    InvalidError,
    UnauthorizedError,
    UnbrokenError,
    UnreachableError,
    VersionError,
    error_from_code,
)
from unbroken.limits import Limits
from unbroken.messages import UNREADABLE
from unbroken.protocol import negotiation

__all__ = ["Address", "ConnectFailedError", "Connector", "TokenSource", "retry_after_seconds"]

TokenSource = str | Callable[[], "Awaitable[str | None] | str | None"] | None
"""A token, or a function that gives the present one, sync or async: it is asked for each connection and request."""

_REFUSALS: dict[int, type[UnbrokenError]] = {401: UnauthorizedError, 403: ForbiddenOriginError, 426: VersionError}


class ConnectFailedError(Exception):
    """No connection. `refusal` is set where trying again by itself is of no use; else `retry_after` is waited at
    least.
    """

    def __init__(self, message: str, *, refusal: UnbrokenError | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.retry_after = retry_after


class Problem(msgspec.Struct, frozen=True):
    """An RFC 9457 document as the server writes it."""

    code: str = ""
    detail: str = ""
    facts: dict[str, str | int | bool | None] = {}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: the same place for HTTP and for WebSocket."""

    http: str
    websocket: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `http(s)://host[:port][/prefix]` (or `ws(s)://…`); anything else raises `InvalidError`."""
        parts = urlsplit(url)
        schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
        if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
            raise InvalidError("a server's address is http(s)://host[:port][/prefix]", field="url")
        if parts.username is not None or parts.password is not None:
            raise InvalidError("credentials go into `token`, never into the address", field="url")
        path, socket = parts.path.rstrip("/"), schemes[parts.scheme]
        plain = "https" if socket == "wss" else "http"
        return cls(
            http=urlunsplit((plain, parts.netloc, path, "", "")),
            websocket=urlunsplit((socket, parts.netloc, f"{path}/v1/ws", "", "")),
        )


@dataclass(frozen=True, slots=True)
class Connector:
    """How to reach one server."""

    address: Address
    limits: Limits
    clock: Clock
    token: TokenSource = field(default=None, repr=False)
    ssl: tls.SSLContext | None = None

    @property
    def renewable(self) -> bool:
        """Whether there may be a newer token than the last one."""
        return callable(self.token)

    async def present_token(self) -> str | None:
        """The token as it is now. `UnreachableError` when its function fails or does not answer in time."""
        source = self.token
        if not callable(source):
            return source
        try:
            async with asyncio.timeout(self.limits.handshake_seconds_max):
                given = source()
                return await given if inspect.isawaitable(given) else given
        except UnbrokenError:
            raise
        except Exception as error:  # the application's own; what it says may hold a secret
            raise UnreachableError(f"there is no token: {type(error).__name__}") from error

    async def headers(self) -> dict[str, str]:
        token = await self.present_token()
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    async def open(self) -> ClientConnection:
        """One connection after its handshake; `ConnectFailedError` for every way in which there is none."""
        try:
            headers = await self.headers()
        except UnbrokenError as error:
            raise ConnectFailedError(error.message, refusal=None if error.retryable else error) from error
        encrypted = self.address.websocket.startswith("wss:")
        try:
            connection = await connect(
                self.address.websocket,
                subprotocols=[Subprotocol(name) for name in negotiation.offer()],
                compression=None,
                additional_headers=headers,
                user_agent_header="unbroken",
                open_timeout=self.limits.handshake_seconds_max,
                ping_interval=None,
                close_timeout=self.limits.client_close_seconds_max,
                max_size=self.limits.frame_bytes_max,
                ssl=(self.ssl or True) if encrypted else None,
            )
        except InvalidStatus as error:
            raise self._refused(error) from error
        except InvalidURI as error:
            raise ConnectFailedError(str(error), refusal=InvalidError(str(error), field="url")) from error
        except (OSError, TimeoutError, EOFError, InvalidHandshake, WebSocketException) as error:
            raise ConnectFailedError(f"{type(error).__name__}: {error}") from error
        try:
            negotiation.check(connection.subprotocol)
        except VersionError as error:
            connection.transport.abort()
            raise ConnectFailedError(error.message, refusal=error) from error
        return connection

    def _refused(self, error: InvalidStatus) -> ConnectFailedError:
        response = error.response
        problem = decode_problem(bytes(response.body or b""))
        refusal: UnbrokenError | None = None
        kind = _REFUSALS.get(response.status_code)
        if kind is not None:
            known = problem.code == kind.code
            refusal = error_from_code(kind.code, problem.detail if known else "", problem.facts if known else {})
        waited = retry_after_seconds(response.headers.get("Retry-After"), self.clock, self.limits)
        return ConnectFailedError(f"HTTP {response.status_code}", refusal=refusal, retry_after=waited)


def decode_problem(body: bytes) -> Problem:
    """The problem document of an answer; an empty one when it is something else (a proxy's page, say)."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except UNREADABLE:
        return Problem()


def retry_after_seconds(value: str | None, clock: Clock, limits: Limits) -> float:
    """A `Retry-After` header in seconds, from a number or a date; 0 when it says nothing usable."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - clock.now_ms() / 1000
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), limits.retry_after_seconds_max) if seconds == seconds else 0.0  # noqa: PLR0124 - NaN
