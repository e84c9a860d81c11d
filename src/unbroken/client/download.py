"""Downloading a file that a run has stored, whole or not at all.

`Client.download` calls it. The bytes go into a file of another name beside the target, which takes its name when everything
has come and is what was stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from pathlib import Path

import anyio
import msgspec

from unbroken.client.http import HttpFace, place
from unbroken.client.transport import Connector
from unbroken.errors import CorruptError, TransitionError, UnreachableError
from unbroken.messages import FILE_KIND, StreamState
from unbroken.protocol.backoff import Backoff
from unbroken.protocol.frames import StreamView

__all__ = ["download"]


class _Facts(msgspec.Struct, frozen=True):
    sha256: str = ""


async def download(face: HttpFace, connector: Connector, stream: str, target: Path) -> int:
    """The number of bytes that `target` has now; see `Client.download`."""
    view = await face.get(place("streams", stream), StreamView)
    if view.kind == FILE_KIND and view.state != StreamState.COMPLETED:
        raise TransitionError(f"the file is {view.state}: it is not whole", state=view.state)
    part = anyio.Path(target.with_name(f".{target.name}.{secrets.token_hex(4)}.part"))
    try:
        size, digest = await _fetch_patiently(face, connector, stream, part)
        wanted = msgspec.json.decode(view.metadata, type=_Facts).sha256 if view.kind == FILE_KIND else ""
        if wanted and digest != wanted:
            raise CorruptError("the bytes that came are not those that were stored", stream=stream)
        await part.rename(target)
    finally:
        await part.unlink(missing_ok=True)
    return size


async def _fetch_patiently(face: HttpFace, connector: Connector, stream: str, part: anyio.Path) -> tuple[int, str]:
    """As `_fetch`, from the beginning again after a lost connection, `client_retries_max` times."""
    loop, backoff = asyncio.get_running_loop(), Backoff(connector.limits, connector.clock.random)
    while True:
        try:
            return await _fetch(face, stream, part)
        except UnreachableError:
            if backoff.failures >= connector.limits.client_retries_max:
                raise
        await asyncio.sleep(backoff.failure(loop.time()))


async def _fetch(face: HttpFace, stream: str, part: anyio.Path) -> tuple[int, str]:
    """Write all of it to `part`; its size and digest."""
    size, digest = 0, hashlib.sha256()
    async with await part.open("wb") as file, face.body(place("content", stream)) as pieces:
        async for piece in pieces:
            await file.write(piece)
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()
