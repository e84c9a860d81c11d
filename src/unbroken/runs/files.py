"""Files as results: each becomes a stream of its own beside the run's, which the run's messages refer to.

`RunContext.file` calls `keep`. A file is written under a lease and ends as completed when all of it is durable, so that a
reference never names half a file; the bytes share everything that messages have: checks, limits, time to live, deletion.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import mimetypes
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol, TypeVar

import msgspec

from unbroken.errors import InvalidError, NotFoundError, TooLargeError, TransitionError, UnbrokenError
from unbroken.identity import Principal
from unbroken.limits import Limits
from unbroken.messages import FILE_KIND, NewMessage, StreamInfo, StreamState, files_prefix
from unbroken.requests import AppendOptions, NewStream
from unbroken.states import StreamStateManager
from unbroken.store.base import Close, Created, Producer
from unbroken.store.erasing import check_erased
from unbroken.streams import Streams

__all__ = ["FileReference", "NewFile", "Patiently", "keep"]

T = TypeVar("T")
CHUNK_BYTES: Final = 256 * 1024
PRODUCER: Final = "run-file"
NAME_CHARACTERS_MAX: Final = 200


class FileReference(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's message of the kind `file` says: `stream` has the bytes, `sha256` is their digest in hex."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    stream: str


class Patiently(Protocol):
    """Does something, as often as it takes while the store is away."""

    async def __call__(self, work: Callable[[], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to keep: its bytes, or where they are. Raises `InvalidError` for a name that is none."""

    name: str
    content: bytes | Path
    media_type: str

    @classmethod
    def of(cls, content: bytes | Path, name: str = "", media_type: str = "") -> NewFile:
        """A path gives its last part as name, the name gives the media type, unless they are given."""
        if not name and isinstance(content, Path):
            name = content.name
        if not 1 <= len(name) <= NAME_CHARACTERS_MAX or "/" in name or not name.isprintable():
            text = f"a file's name has 1 to {NAME_CHARACTERS_MAX} characters that can be seen, and no /"
            raise InvalidError(text, field="name")
        return cls(name, content, media_type or mimetypes.guess_type(name)[0] or "application/octet-stream")

    def open(self) -> IO[bytes]:
        """Its bytes from the beginning; `InvalidError` for a path that cannot be read."""
        try:
            return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")
        except OSError as error:
            raise InvalidError(f"the file {self.name!r} cannot be read: {error.strerror}", field="content") from None


async def keep(
    streams: Streams, states: StreamStateManager, run: StreamInfo, file: NewFile, patiently: Patiently
) -> FileReference:
    """Store the file durably, or find that it is stored already, as the same name and bytes in one run are one file.

    Raises `InvalidError` for what cannot be read or changes meanwhile, `TooLargeError` beyond `run_file_bytes_max`,
    `ErasedError` or `NotFoundError` for a run that was erased or deleted meanwhile: then nothing of the file stays.
    Cancelled, it leaves nothing behind.
    """
    size, digest = await asyncio.to_thread(_measure, file, streams.limits)
    await patiently(lambda: _check_kept(streams, run))
    name = f"{files_prefix(run.name)}{digest[:16]}/{file.name}"
    found = FileReference(name=file.name, media_type=file.media_type, bytes=size, sha256=digest, stream=name)
    created = await patiently(lambda: _create(streams, run, found))
    if not created.created:
        if created.stream.state is StreamState.COMPLETED:
            return found
        await patiently(lambda: streams.delete(created.stream))  # what a crash left of it
        created = await patiently(lambda: _create(streams, run, found))
    stream = created.stream
    try:
        appends, seen = await _fill(streams, states, stream, file, patiently)
        if seen != digest:
            raise InvalidError(f"the file {file.name!r} was changed while it was read", field="content")
        options = AppendOptions(producer=Producer(PRODUCER, 1, appends), close=Close(StreamState.COMPLETED))
        await patiently(lambda: streams.append_durably(stream, [], options))
        await patiently(lambda: _check_kept(streams, run))  # else its erasure or deletion found this file, or we see it
    except BaseException:
        with suppress(UnbrokenError):
            await streams.delete(stream)
        raise
    return found


async def _check_kept(streams: Streams, run: StreamInfo) -> None:
    info = await streams.store.get_by_id(run.id)
    if info is None or info.deleted:
        raise NotFoundError(f"no stream {run.name!r}", stream=run.name)
    check_erased(info)


async def _create(streams: Streams, run: StreamInfo, file: FileReference) -> Created:
    new = NewStream(
        kind=FILE_KIND,
        content_type=file.media_type,
        session=run.session,
        metadata=msgspec.json.encode({"name": file.name, "bytes": file.bytes, "sha256": file.sha256}).decode(),
        ttl_seconds=run.ttl_seconds,
        lease=Producer(PRODUCER, 1, 0),
    )
    while True:
        try:
            return await streams.create(Principal(run.tenant, run.owner), file.stream, new)
        except TransitionError:  # its session is paused, and the run with it
            await asyncio.sleep(streams.limits.run_poll_seconds)


async def _fill(
    streams: Streams, states: StreamStateManager, stream: StreamInfo, file: NewFile, patiently: Patiently
) -> tuple[int, str]:
    """Append all of it under the lease; how many appends it took, and the digest of what was appended."""
    loop, digest, appends = asyncio.get_running_loop(), hashlib.sha256(), 0
    leased_at = loop.time()
    with await asyncio.to_thread(file.open) as content:
        while chunk := await asyncio.to_thread(content.read, CHUNK_BYTES):
            digest.update(chunk)
            options = AppendOptions(producer=Producer(PRODUCER, 1, appends), verbatim=True)
            await patiently(_appending(streams, stream, NewMessage(data=chunk), options))
            appends += 1
            if loop.time() - leased_at > streams.limits.lease_seconds / 3:
                await patiently(lambda: states.lease(stream, PRODUCER, 1, None))
                leased_at = loop.time()
    return appends, digest.hexdigest()


def _appending(
    streams: Streams, stream: StreamInfo, message: NewMessage, options: AppendOptions
) -> Callable[[], Awaitable[object]]:
    return lambda: streams.append_durably(stream, [message], options)


def _measure(file: NewFile, limits: Limits) -> tuple[int, str]:
    """Its size and digest, read in a thread."""
    size, digest = 0, hashlib.sha256()
    with file.open() as content:
        while chunk := content.read(CHUNK_BYTES):
            size += len(chunk)
            if size > limits.run_file_bytes_max:
                raise TooLargeError(f"a file has at most {limits.run_file_bytes_max} bytes", limit="run_file_bytes_max")
            digest.update(chunk)
    return size, digest.hexdigest()
