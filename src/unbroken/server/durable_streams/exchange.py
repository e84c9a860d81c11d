"""One request of this face and the ways to answer it: names, bodies, refusals, and what every response carries.

The handlers of this package use it. It decides nothing about streams; who may see one is decided by `Streams`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unbroken.errors import DrainingError, InvalidError, NotFoundError, OverloadedError, StoreError, UnbrokenError
from unbroken.identity import Principal, Verb
from unbroken.messages import Seq, StreamInfo, StreamState
from unbroken.server.durable_streams.offsets import Lineage, Offset
from unbroken.server.headers import SANDBOX_POLICY
from unbroken.server.services import Services
from unbroken.store.lineage import check_older

__all__ = ["NO_STORE", "SAFE_HEADERS", "Exchange", "Refusal", "state_headers"]

SAFE_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": SANDBOX_POLICY,
}
"""On every response: contents are what somebody appended, so a browser neither guesses what they are nor runs them."""
NO_STORE: Final = {"cache-control": "no-store"}


class Refusal(Exception):  # noqa: N818 - not an error of its own: an error with its answer
    """`error`, answered with this face's own status and headers."""

    def __init__(self, error: UnbrokenError, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.error = error
        self.status = status
        self.headers = dict(headers or {})
        super().__init__(str(error))


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request whose sender and stream name are known."""

    services: Services
    scope: Scope = field(repr=False)
    receive: Receive = field(repr=False)
    send: Send = field(repr=False)
    principal: Principal
    name: str
    headers: dict[str, str] = field(repr=False)
    held: ExitStack = field(repr=False)
    """Closed when the request is answered."""

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; `InvalidError` when one of ours is there twice or is not UTF-8."""
        found: dict[str, str] = {}
        try:
            pairs = parse_qsl(self.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
        except (UnicodeDecodeError, ValueError):
            raise InvalidError("the query is percent-encoded UTF-8", field="query") from None
        for name, value in pairs:
            if name in found and name in {"offset", "live", "cursor"}:
                raise InvalidError(f"{name} is there more than once", field=name)
            found[name] = value
        return found

    @property
    def root(self) -> str:
        """The path of this face, behind which stream names begin."""
        path: str = self.scope["path"]
        return path.removesuffix(self.name)

    @property
    def origin(self) -> str:
        """Scheme and host, as the sender reached them."""
        return f"{self.scope.get('scheme', 'http')}://{self.headers.get('host', 'localhost')}"

    @property
    def url(self) -> str:
        """The absolute URL of the stream, as the sender wrote it."""
        raw: bytes = self.scope.get("raw_path") or quote(self.scope["path"]).encode()
        return self.origin + raw.partition(b"?")[0].decode("latin-1")

    async def body(self) -> bytes:
        """The whole body, which the guard in front keeps within `body_bytes_max`."""
        return await self.services.bodies.whole(self.receive, self.held, self.principal)

    async def reply(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """The whole answer at once; HEAD, 204 and 304 have no body."""
        response = Response(None if status in {204, 304} else body, status, {**SAFE_HEADERS, **headers})
        if self.scope["method"] == "HEAD":
            del response.headers["content-length"]
            response.body = b""
        await response(self.scope, self.receive, self.send)

    async def begin(self, headers: Mapping[str, str]) -> None:
        """The head of an answer whose body follows in pieces, without a length."""
        raw = [(name.encode(), text.encode()) for name, text in {**SAFE_HEADERS, **headers}.items()]
        await self.send({"type": "http.response.start", "status": 200, "headers": raw})

    async def find(self, may: Verb, name: str | None = None) -> StreamInfo | None:
        """The stream of that name unless it is not there, not to be read, or expired; soft-deleted ones included.

        `ForbiddenError` for a sender who may read it, and may not do `may`.
        """
        try:
            info = await self.services.streams.get(self.principal, name or self.name, may=may, deleted=True)
        except NotFoundError:
            return None
        return None if not info.deleted and self.expired(info) else info

    async def stream(self, may: Verb) -> StreamInfo:
        """The stream of the request: 404 when it is not there or expired, 410 when only its forks keep it."""
        info = await self.find(may)
        if info is None:
            raise NotFoundError(f"no stream {self.name!r}", stream=self.name)
        if info.deleted:
            raise Refusal(NotFoundError(f"the stream {self.name!r} was deleted", stream=self.name), 410)
        return info

    def expired(self, info: StreamInfo) -> bool:
        """Whether the stream's time is over, also before retention has deleted it."""
        return info.expires_ms is not None and info.expires_ms <= self.services.clock.now_ms()

    async def lineage(self, info: StreamInfo) -> Lineage:
        """The streams that `info` goes back to."""
        streams = [info]
        while (source := streams[-1].forked_from) is not None:
            found = await self.services.store.get_by_id(source)
            if found is None:
                raise NotFoundError(f"no stream {info.name!r}", stream=info.name)  # deleted in this moment
            check_older(found, streams[-1])
            streams.append(found)
        return Lineage.of(*streams)

    async def offset(self, info: StreamInfo, seq: Seq) -> Offset:
        """The offset behind message `seq` of `info`."""
        if info.forked_from is None or seq > info.fork_seq:
            return Offset(info.epoch, seq)
        return (await self.lineage(info)).offset(seq)

    async def touch(self, info: StreamInfo) -> None:
        """Slide the expiry of a stream with a time to live, unless it would move by less than a hundredth of it.

        Reading goes on when the store takes no writes: then it does not slide.
        """
        if info.ttl_seconds is None or info.expires_ms is None:
            return
        expires = self.services.clock.now_ms() + info.ttl_seconds * 1000
        if expires - info.expires_ms < info.ttl_seconds * 10:
            return
        try:
            await self.services.streams.touch(info)
        except (StoreError, DrainingError, OverloadedError) as error:
            self.services.refused(error, "durable_streams", by=self.principal)


def state_headers(info: StreamInfo) -> dict[str, str]:
    """What a reader is told of an ended stream once it has everything: that it is closed, and how when not as completed."""
    if not info.state.terminal:
        return {}
    closed = {"stream-closed": "true"}
    if info.state is not StreamState.COMPLETED:
        closed["stream-state"] = info.state.value
    return closed
