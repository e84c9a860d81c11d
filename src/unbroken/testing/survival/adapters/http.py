"""What adapters that speak HTTP share: one request with its outcome, and a response of Server-Sent Events.

They decide what to send and what an answer means; nothing here knows a protocol.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Self, TypeVar

import httpx2
import msgspec

from unbroken.protocol.sse import ServerEvent, SseParser
from unbroken.testing.survival.adapter import Adapter, LostError, RefusedError

__all__ = ["HttpAdapter", "decoded"]

T = TypeVar("T")
SECONDS = 20.0
ERRORS_FROM = 400
PASSING_FROM = 500
PASSING = frozenset({408, 429})
NO_CONTENT = 204
SCHEMES = {"ws": "http", "wss": "https"}


class HttpAdapter(Adapter):
    """An adapter with an HTTP client; an address of `ws:` or `wss:` means the same server."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        scheme, colon, rest = url.partition(":")
        super().__init__(f"{SCHEMES.get(scheme, scheme)}{colon}{rest}", token=token)

    async def __aenter__(self) -> Self:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        known = self.secure
        if known is None:
            self._client = httpx2.AsyncClient(timeout=SECONDS, headers=headers)
        else:
            headers["Host"] = known.authority
            self._client = httpx2.AsyncClient(timeout=SECONDS, headers=headers, verify=known.ssl)
        return self

    @property
    def _extensions(self) -> dict[str, str]:
        """Whose certificate each request insists on, where it is not that of the address."""
        return {} if self.secure is None else {"sni_hostname": self.secure.host}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def request(
        self, method: str, path: str, *, content: str | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """One request; `RefusedError` for an answer that says no, `LostError` for none or one of a moment's trouble."""
        try:
            response = await self._client.request(
                method, f"{self.url}{path}", content=content, headers=headers, extensions=self._extensions
            )
        except httpx2.TransportError as error:
            raise LostError(f"{type(error).__name__}: {error}") from error
        self._check(response.status_code, method, path)
        return response

    async def events(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncGenerator[ServerEvent, None]:
        """The events of one response until it ends; none for an answer without content."""
        wanted = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **(headers or {})}
        timeout = httpx2.Timeout(SECONDS, read=None)
        parser = SseParser()
        try:
            async with self._client.stream(
                "GET", f"{self.url}{path}", headers=wanted, timeout=timeout, extensions=self._extensions
            ) as response:
                self._check(response.status_code, "GET", path)
                if response.status_code == NO_CONTENT:
                    return
                async for data in response.aiter_raw():
                    for event in parser.feed(data):
                        yield event
        except httpx2.TransportError as error:
            raise LostError(f"{type(error).__name__}: {error}") from error

    @staticmethod
    def _check(status: int, method: str, path: str) -> None:
        if status < ERRORS_FROM:
            return
        if status >= PASSING_FROM or status in PASSING:
            raise LostError(f"{method} {path}: {status}")
        raise RefusedError(f"{method} {path}: {status}")


def decoded(data: str | bytes, kind: type[T]) -> T:
    """JSON as a value of `kind`; what cannot be decoded is as good as no answer."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise LostError(f"an answer that is not understood: {error}") from error
