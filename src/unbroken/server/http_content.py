"""The payloads of a stream as one body over HTTP: how a file that a run has stored is downloaded (PROTOCOL.md 2).

`http.routes` mounts the handler. A body that breaks off is not ended, so that its reader knows: it is never silently cut.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.requests import ClientDisconnect

from unbroken.errors import TrimmedError
from unbroken.identity import Verb
from unbroken.messages import FILE_KIND, Seq, StreamInfo, decode_messages, payload_bytes
from unbroken.server.departure import LongResponses, unless, while_connected
from unbroken.server.direct import Delivery
from unbroken.server.headers import SANDBOX_POLICY
from unbroken.server.resource import Call
from unbroken.store.erasing import check_erased
from unbroken.streams import Streams

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from unbroken.server.services import Services

__all__ = ["content_reader"]

_TURNING: Final = re.compile("[\u061c\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of writing: among them a name shows another end than it has."""
PIECE_BYTES: Final = 64 * 1024
"""What a reader has to take before its silence is over."""


def content_reader(services: Services) -> Callable[[Call], Awaitable[ASGIApp]]:
    """The handler of `GET /v1/content/NAME`, with its own count of open responses."""
    downloads = LongResponses(services, "content")

    async def read_content(call: Call) -> ASGIApp:
        """Every payload up to the present head, joined, to be saved and never shown: what is in it is anybody's."""
        call.query()
        stream = await services.streams.get(call.principal, call.name, may=Verb.READ)
        check_erased(stream)
        if stream.first > 1:
            raise TrimmedError(first=stream.first, stream=stream.name)
        return _Download(call, stream, downloads)

    return read_content


class _Download:
    """One body on its way. It is cut off when the credential ends, and when its reader takes nothing for too long."""

    def __init__(self, call: Call, stream: StreamInfo, places: LongResponses) -> None:
        self._services = call.services
        self._principal = call.principal
        self._stream = stream
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": _headers(self._stream)}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        with self._places.place(self._principal), self._services.live.present(self._principal) as presence:
            await send(start)
            seconds = self._services.limits.silence_seconds_max
            watched = Delivery(scope, receive, seconds).looked_after
            sending = self._send(send, None if watched else seconds)
            if await unless(presence.gone.wait, while_connected(receive, sending)) is None:
                raise ClientDisconnect

    async def _send(self, send: Send, piece_seconds: float | None) -> None:
        async for piece in _pieces(self._services.streams, self._stream):
            try:
                async with asyncio.timeout(piece_seconds):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                raise ClientDisconnect from None
        await send({"type": "http.response.body", "body": b""})


def _headers(stream: StreamInfo) -> list[tuple[bytes, bytes]]:
    name = _TURNING.sub("", stream.name.rpartition("/")[2])
    content_type = stream.content_type if stream.kind == FILE_KIND else "application/octet-stream"
    return [
        (b"content-type", content_type.encode("latin-1")),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}".encode()),
        (b"content-security-policy", SANDBOX_POLICY.encode()),
    ]


async def _pieces(streams: Streams, stream: StreamInfo) -> AsyncIterator[bytes]:
    seq = Seq(0)
    while seq < stream.head:
        for batch in (await streams.read(stream, seq, messages_max=stream.head - seq)).batches:
            body = b"".join([payload_bytes(message) for message in decode_messages(batch.body)])
            for start in range(0, len(body), PIECE_BYTES):
                yield body[start : start + PIECE_BYTES]
            seq = batch.last
