"""The payloads of a stream as one body over HTTP: how a file that a run has stored is downloaded (PROTOCOL.md 2).

`http.routes` mounts the handler. A body that breaks off is not ended, so that its reader knows: it is never silently cut.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from unbroken.errors import TrimmedError
from unbroken.identity import Verb
from unbroken.messages import FILE_KIND, Seq, StreamInfo, decode_messages, payload_bytes
from unbroken.server.headers import SANDBOX_POLICY
from unbroken.server.resource import Call
from unbroken.store.erasing import check_erased
from unbroken.streams import Streams

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["read_content"]

_TURNING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of writing: among them a name shows another end than it has."""


async def read_content(call: Call) -> ASGIApp:
    """Every payload up to the present head, joined, to be saved and never shown: what is in it is anybody's."""
    call.query()
    stream = await call.services.streams.get(call.principal, call.name, may=Verb.READ)
    check_erased(stream)
    if stream.first > 1:
        raise TrimmedError(first=stream.first, stream=stream.name)
    headers = _headers(stream)
    if call.head_only:
        return Response(headers=headers)
    return StreamingResponse(_payloads(call.services.streams, stream), headers=headers)


def _headers(stream: StreamInfo) -> Mapping[str, str]:
    name = _TURNING.sub("", stream.name.rpartition("/")[2])
    return {
        "Content-Type": stream.content_type if stream.kind == FILE_KIND else "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": SANDBOX_POLICY,
    }


async def _payloads(streams: Streams, stream: StreamInfo) -> AsyncIterator[bytes]:
    seq = Seq(0)
    while seq < stream.head:
        for batch in (await streams.read(stream, seq, messages_max=stream.head - seq)).batches:
            yield b"".join([payload_bytes(message) for message in decode_messages(batch.body)])
            seq = batch.last
