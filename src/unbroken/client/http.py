"""The client's requests over HTTP: everything that is asked once and answered at once.

`Client` calls it for state, lists, reads and administration. It never follows a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from unbroken.client.transport import Connector, decode_problem, retry_after_seconds
from unbroken.errors import InvalidError, UnbrokenError, UnreachableError, error_from_code
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import UNREADABLE, check_name
from unbroken.protocol.backoff import Backoff

__all__ = ["HttpFace", "Query"]

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]
_BY_STATUS = {400: "invalid", 401: "unauthorized", 403: "forbidden_origin", 404: "not_found", 409: "conflict"}
_PASSING = frozenset({429, 502, 503, 504})


class HttpFace:
    """Requests with their retries.

    Every request here may be repeated without a second effect. A lost connection and an answer that can pass (429, 502,
    503, 504) are retried with backoff, `Retry-After` at least, for `limits.client_retries_max` times; then the error is
    raised. Every answer that is an error is raised as the typed error that its code names.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._client = httpx2.AsyncClient(
            base_url=connector.address.http,
            timeout=connector.limits.client_request_seconds_max,
            verify=True if connector.ssl is None else connector.ssl,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(self, path: str, kind: type[T], query: Query | None = None) -> T:
        """GET and decode."""
        return self._decode((await self._request("GET", path, query=query)).content, kind)

    async def poll(self, path: str, kind: type[T], query: Query | None = None) -> T | None:
        """As `get`; None for an answer without content, with which a long poll ends."""
        content = (await self._request("GET", path, query=query)).content
        return self._decode(content, kind) if content else None

    async def send(self, method: str, path: str, kind: type[T], body: Mapping[str, object] | None = None) -> T:
        """Send a JSON body and decode the answer."""
        return self._decode((await self._request(method, path, body=body or {})).content, kind)

    async def delete(self, path: str) -> None:
        await self._request("DELETE", path)

    @asynccontextmanager
    async def body(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a body of any size, in pieces. It is not asked for again: who needs the rest begins anew."""
        try:
            async with self._client.stream("GET", path, headers=await self._connector.headers()) as response:
                if not response.is_success:
                    await response.aread()
                    raise self._error(response)
                yield response.aiter_bytes()
        except httpx2.TransportError as cause:
            raise UnreachableError(f"the answer broke off: {type(cause).__name__}: {cause}") from cause

    async def _request(
        self, method: str, path: str, *, query: Query | None = None, body: Mapping[str, object] | None = None
    ) -> httpx2.Response:
        loop, limits = asyncio.get_running_loop(), self._connector.limits
        backoff = Backoff(limits, self._connector.clock.random)
        content = None if body is None else msgspec.json.encode(body)
        own = {} if body is None else {"Content-Type": "application/json"}
        again = self._connector.renewable
        parameters = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        while True:
            wait = 0.0
            headers = own | await self._connector.headers()
            try:
                response = await self._client.request(method, path, params=parameters, content=content, headers=headers)
            except httpx2.TransportError as cause:
                error: UnbrokenError = UnreachableError(f"no answer: {type(cause).__name__}: {cause}")
            else:
                if response.is_success:
                    return response
                error = self._error(response)
                if response.status_code == 401 and again:
                    again = False  # the token may have ended on its way: once more, with the present one
                    continue
                if response.status_code not in _PASSING:
                    raise error
                wait = retry_after_seconds(response.headers.get("Retry-After"), self._connector.clock, limits)
            if backoff.failures >= limits.client_retries_max:
                raise error
            await asyncio.sleep(backoff.failure(loop.time(), at_least=wait))

    def _error(self, response: httpx2.Response) -> UnbrokenError:
        problem = decode_problem(response.content)
        code = problem.code or _BY_STATUS.get(response.status_code, "internal")
        return error_from_code(code, problem.detail or f"HTTP {response.status_code}", dict(problem.facts))

    @staticmethod
    def _decode(content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except UNREADABLE as error:
            raise InvalidError(f"the server's answer is not as expected: {error}") from None


def place(face: str, name: str) -> str:
    """The path of a stream or session on one of the faces.

    `InvalidError` for what cannot be a name: URLs fold `..` away, and the request would reach another stream.
    """
    check_name(name, DEFAULT_LIMITS)
    return f"/v1/{face}/{quote(name, safe='/')}"


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
