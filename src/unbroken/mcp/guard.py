"""Stands between the SDK and HTTP: whatever goes wrong with one request becomes the answer to that request alone.

The SDK ends all calls of a client for one broken connection, forgets the status of an error, and reads bodies of any size.
Here every fault is a JSON-RPC error with what is known of it. It also keeps the server's address and headers to itself, so
that no log and no exception above it can hold a secret of theirs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx2
import msgspec

from unbroken.limits import Limits
from unbroken.mcp.config import HttpServer
from unbroken.mcp.credentials import Credentials, HelperError, SentHeaders
from unbroken.mcp.failures import FACTS_KEY, Facts, FailureClass
from unbroken.messages import UNREADABLE

__all__ = ["PLACEHOLDER_URL", "Guard", "guarded_client", "parse_challenge", "proxy_for"]

PLACEHOLDER_URL: Final = "http://mcp.invalid/"
"""What the SDK believes to be the server's address."""
INTERNAL_ERROR: Final = -32603
CHALLENGE_NAMES: Final = ("error", "error_description", "realm", "resource_metadata", "scope")
UNSENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_PARAMETER: Final = re.compile(r'([a-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)


class _Envelope(msgspec.Struct):
    """The part of a JSON-RPC message that the guard looks at."""

    id: int | str | None = None
    method: str = ""
    error: msgspec.Raw = msgspec.Raw()


class _Error(msgspec.Struct):
    code: int = INTERNAL_ERROR
    message: str = ""
    data: object = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """The JSON-RPC request of an HTTP request; `id` None for what has no answer."""

    id: int | str | None
    method: str

    @property
    def bounded(self) -> bool:
        """Whether it is answered at once by a server that works; a tool takes its time."""
        return self.method != "tools/call"


def guarded_client(server: HttpServer, limits: Limits, credentials: Credentials) -> httpx2.AsyncClient:
    """One client for all calls of `server`, without a cap on connections: a call that waits for one would block them all."""
    bounds = httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30.0)
    inner = httpx2.AsyncHTTPTransport(limits=bounds, proxy=proxy_for(server))
    seconds = limits.mcp_connect_seconds
    timeout = httpx2.Timeout(connect=seconds, write=seconds, pool=seconds, read=None)
    return httpx2.AsyncClient(transport=Guard(inner, server, limits, credentials), timeout=timeout, trust_env=False)


def proxy_for(server: HttpServer) -> str | None:
    """The proxy that the environment names for `server`; this machine is reached without one."""
    scheme, host, port = server.origin
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(f"{host}:{port}"):
        return None
    return getproxies().get(scheme)


class Guard(httpx2.AsyncBaseTransport):
    """Sends requests for the placeholder to the real server. Nothing but cancellation leaves it for a POST."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, server: HttpServer, limits: Limits, credentials: Credentials
    ) -> None:
        self._inner = inner
        self._url = httpx2.URL(server.url)
        self._origin = server.origin
        self._limits = limits
        self._credentials = credentials

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The server's response, or one that says what went wrong. Refused headers are renewed once, where they can be."""
        content = await request.aread()
        post = request.method == "POST"
        asked = _asked(content) if post else None
        try:
            headers = await self._credentials.current()
            if asked is None:
                return await self._send(request, self._url, content, headers)
            response, status = await self._bounded(request, asked, content, headers)
            if status == 401 and await self._credentials.renewed(headers):
                headers = await self._credentials.current()
                response, status = await self._bounded(request, asked, content, headers)
        except HelperError as error:
            if asked is None:
                raise httpx2.ConnectError(str(error)) from None
            return _refusal(asked, str(error), Facts(kind=FailureClass.AUTH, unsent=True))
        if status not in {None, 401}:
            self._credentials.accepted()
        return response

    async def _bounded(
        self, request: httpx2.Request, asked: _Asked, content: bytes, headers: SentHeaders
    ) -> tuple[httpx2.Response, int | None]:
        """One exchange, and the server's status; None when it did not get that far."""
        try:
            async with asyncio.timeout(self._limits.mcp_connect_seconds if asked.bounded else None):
                return await self._exchange(request, asked, content, headers)
        except TimeoutError:
            seconds = self._limits.mcp_connect_seconds
            facts = Facts(kind=FailureClass.TRANSPORT, exception="Timeout")
            return _refusal(asked, f"no answer within {seconds:g} s", facts), None
        except httpx2.TransportError as error:
            name = type(error).__name__
            facts = Facts(kind=FailureClass.TRANSPORT, exception=name, unsent=isinstance(error, UNSENT))
            return _refusal(asked, f"the connection failed ({name})", facts), None

    async def _exchange(
        self, request: httpx2.Request, asked: _Asked, content: bytes, headers: SentHeaders
    ) -> tuple[httpx2.Response, int]:
        response = await self._send(request, self._url, content, headers)
        if response.status_code in {307, 308} and (again := self._same_origin(response)) is not None:
            await response.aclose()
            response = await self._send(request, again, content, headers)
        return await self._judged(response, asked), response.status_code

    async def _judged(self, response: httpx2.Response, asked: _Asked) -> httpx2.Response:
        """The response, or what is wrong with it."""
        status = response.status_code
        if status >= 300:
            return await self._failed(response, asked)
        if asked.id is None:
            return response
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if status == 202 or kind not in {"application/json", "text/event-stream"}:
            await response.aclose()
            what = f"with {kind or 'no content type'}" if status != 202 else "without an answer"
            return _refusal(
                asked, f"the server answered {what}", Facts(kind=FailureClass.BAD_RESPONSE, http_status=status)
            )
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            text = "the server compressed its answer, which was not asked for"
            return _refusal(asked, text, Facts(kind=FailureClass.BAD_RESPONSE, http_status=status))
        return await self._whole(response, asked) if kind == "application/json" else response

    async def _send(
        self, request: httpx2.Request, url: httpx2.URL, content: bytes, headers: SentHeaders
    ) -> httpx2.Response:
        sent = httpx2.Headers(request.headers)
        sent.update(headers.values)
        sent["accept-encoding"] = "identity"
        sent["host"] = url.netloc.decode("ascii")
        real = httpx2.Request(request.method, url, headers=sent, content=content, extensions=request.extensions)
        return await self._inner.handle_async_request(real)

    def _same_origin(self, response: httpx2.Response) -> httpx2.URL | None:
        """Where a redirect leads, if it is the same server: the configured headers go nowhere else."""
        try:
            target = self._url.join(response.headers.get("location", ""))
        except httpx2.InvalidURL:
            return None
        port = target.port or {"http": 80, "https": 443}.get(target.scheme)
        return target if (target.scheme, target.host, port) == self._origin else None

    async def _whole(self, response: httpx2.Response, asked: _Asked) -> httpx2.Response:
        """A JSON answer, read within its limit; it is JSON, and the answer to this request."""
        most = self._limits.mcp_result_bytes_max
        body = await _read(response, most)
        if body is None:
            return _refusal(
                asked, f"the answer has more than {most} bytes", Facts(kind=FailureClass.TOO_LARGE, http_status=200)
            )
        try:
            answer = msgspec.json.decode(body, type=_Envelope)
        except UNREADABLE:
            return _refusal(asked, "the answer is not JSON-RPC", Facts(kind=FailureClass.BAD_RESPONSE, http_status=200))
        if answer.id != asked.id and not answer.error:
            text = "the answer belongs to another request"
            return _refusal(asked, text, Facts(kind=FailureClass.BAD_RESPONSE, http_status=200))
        headers = {"content-type": "application/json"}
        if session := response.headers.get("mcp-session-id"):
            headers["mcp-session-id"] = session
        return httpx2.Response(200, headers=headers, content=body)

    async def _failed(self, response: httpx2.Response, asked: _Asked) -> httpx2.Response:
        """An HTTP error, with the JSON-RPC error that its body may hold."""
        status = response.status_code
        body = await _read(response, self._limits.mcp_error_bytes_max)
        facts = Facts(
            kind=_kind_of(status),
            http_status=status,
            retry_after=_retry_after(response.headers),
            www_authenticate=parse_challenge(response.headers.get("www-authenticate", "")),
        )
        try:
            answer = msgspec.json.decode(body or b"", type=_Envelope)
            found = None if not answer.error else msgspec.json.decode(answer.error, type=_Error)
        except UNREADABLE:
            found = None
        if found is None:
            place = " to another place" if status < 400 else ""
            return _refusal(asked, f"the server answered HTTP {status}{place}", facts)
        return _refusal(asked, found.message, facts, code=found.code, data=found.data)


def _kind_of(status: int) -> FailureClass:
    if status in {401, 403, 407}:
        return FailureClass.AUTH
    if status == 429:
        return FailureClass.RATE_LIMITED
    if status == 413:
        return FailureClass.TOO_LARGE
    return FailureClass.SERVER_ERROR if status >= 400 else FailureClass.BAD_RESPONSE


def _asked(content: bytes) -> _Asked:
    message = msgspec.json.decode(content, type=_Envelope)
    return _Asked(message.id if message.method else None, message.method)


async def _read(response: httpx2.Response, most: int) -> bytes | None:
    """The body, or None when it has more than `most` bytes; the response is closed."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in _stream(response):
            parts.append(part)
            size += len(part)
            if size > most:
                return None
    finally:
        await response.aclose()
    return b"".join(parts)


def _stream(response: httpx2.Response) -> AsyncIterator[bytes]:
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    return aiter(stream)


def _refusal(
    asked: _Asked, message: str, facts: Facts, *, code: int = INTERNAL_ERROR, data: object = None
) -> httpx2.Response:
    """The JSON-RPC error that the caller gets; for a notification, an acceptance: nobody waits for its outcome."""
    if asked.id is None:
        return httpx2.Response(202)
    known = dict(data) if isinstance(data, Mapping) else {} if data is None else {"data": data}
    known[FACTS_KEY] = facts
    error = {"code": code, "message": message, "data": known}
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": asked.id, "error": error})
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=body)


def parse_challenge(header: str) -> dict[str, str]:
    """The scheme and the parameters of a `WWW-Authenticate` header that say what is wanted; nothing else of it."""
    scheme = header.split(maxsplit=1)[0] if header.strip() else ""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,30}", scheme):
        return {}
    found = {"scheme": scheme}
    for match in _PARAMETER.finditer(header, len(scheme)):
        name = match[1].lower()
        if name in CHALLENGE_NAMES:
            found.setdefault(name, (match[2] if match[2] is not None else match[3])[:500])
    return found


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds; a date counts from the response's own date."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (TypeError, ValueError):
        return None
