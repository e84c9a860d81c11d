"""Owns the targets that are a whole server: requests of every route, and frames of a connection, with a real engine.

`running` opens them. What is wrong is an answer that is no answer of ours, or a failure that the log calls unexpected.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from hypothesis import strategies as st
from starlette.types import Message, Scope

from tests.fuzz import samples
from tests.fuzz.parsers import Target
from tests.fuzz.shapes import json_near, near, text_near
from unbroken.auth.access import Access
from unbroken.identity import Principal
from unbroken.limits import Limits
from unbroken.protocol.codec import decode_server
from unbroken.server.app import build_app, build_routes, build_services
from unbroken.server.connection import Connection
from unbroken.server.engine import Engine
from unbroken.server.wire import AsgiWire
from unbroken.store.memory import MemoryStore

__all__ = ["running"]

SECONDS_MAX: Final = 60.0
LIMITS: Final = Limits(long_poll_seconds=0.01)
_NAMES: Final = text_near("a", "chat/1", "ä b", "r/files/x")
_BODIES: Final[tuple[dict[str, object], ...]] = (
    {"messages": list(samples.MESSAGES), "producer": {"id": "p", "epoch": 0, "seq": 0}, "create": {"kind": "run"}},
    {
        "kind": "run",
        "session": "s",
        "metadata": {"a": 1},
        "ttl_seconds": 60,
        "lease": {"id": "p"},
        "content_type": "text/plain",
    },
    {"state": "completed", "reason": {"a": 1}, "producer": {"id": "p"}},
    {"before": 3, "producer": {"id": "p"}, "seconds": 5.0},
    {"state": "paused", "metadata": {}},
    {"task": "t", "arguments": {}, "name": "r", "session": "s", "key": "k"},
    {"id": "q", "response": [1]},
    {},
)
_QUERIES: Final = (
    *(
        "",
        "after=1:1",
        "after=last:2&limit=3",
        "live=long-poll&after=now",
        "limit=10&page=x",
        "session=s&state=open&prefix=a",
    ),
    *("offset=-1", "offset=now&live=long-poll", "offset=0000000000000001_0000000000000001&cursor=5", "dry_run=true"),
)
_METHODS: Final = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X" * 30])
_HEADERS: Final = (
    *samples.HEADER_NAMES,
    *(
        "authorization",
        "origin",
        "host",
        "content-length",
        "expect",
        "accept",
        "last-event-id",
        "x-forwarded-for",
        "cookie",
    ),
    *("access-control-request-method", "access-control-request-headers", "sec-fetch-site", "if-match", "range"),
)


class _Alarms(logging.Handler):
    """What the log tells that must never be told."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class _World:
    """A server with its faces, in a loop of its own."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._engine: Engine
        self.alarms = _Alarms()

    @contextmanager
    def running(self) -> Iterator[None]:
        root = logging.getLogger()
        root.addHandler(self.alarms)
        running = self._runner.run(self._start())
        try:
            yield
        finally:
            self._runner.run(running.__aexit__(None, None, None))
            root.removeHandler(self.alarms)

    async def _start(self) -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.alarms.found.append(str(context)))
        services = build_services(MemoryStore(limits=LIMITS), Access(), limits=LIMITS)
        self._engine = Engine(services)
        self._app = build_app(self._engine)
        running = self._engine.running()
        await running.__aenter__()
        return running

    def attempt_request(self, request: tuple[str, str, bytes, dict[str, str], Sequence[bytes]]) -> None:
        status, headers, body = self._runner.run(self._request(*request))
        assert self.alarms.found == [], self.alarms.found
        assert status is not None, "there is no answer"
        assert status < 500, (status, body)
        if status >= 400 and request[0] != "HEAD":
            assert headers[b"content-type"] == b"application/problem+json"
            assert {"code", "detail", "status"} <= json.loads(body).keys()
        assert headers[b"x-content-type-options"] == b"nosniff"

    async def _request(
        self, method: str, path: str, query: bytes, headers: dict[str, str], parts: Sequence[bytes]
    ) -> tuple[int | None, dict[bytes, bytes], bytes]:
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "root_path": "",
            "path": path,
            "raw_path": path.encode(errors="surrogatepass"),
            "query_string": query,
            "headers": [
                (b"host", b"127.0.0.1:1"),
                *[(k.encode(), v.encode(errors="replace")) for k, v in headers.items()],
            ],
            "server": ("127.0.0.1", 1),
            "client": ("127.0.0.1", 2),
        }
        waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        waiting.append({"type": "http.request", "body": b"", "more_body": False})
        sent: list[Message] = []

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        async with asyncio.timeout(SECONDS_MAX):
            await self._app(scope, receive, send)
        start = next((one for one in sent if one["type"] == "http.response.start"), None)
        body = b"".join(one.get("body", b"") for one in sent if one["type"] == "http.response.body")
        return (None, {}, b"") if start is None else (start["status"], dict(start["headers"]), body)

    def attempt_frames(self, frames: Sequence[bytes]) -> None:
        self._runner.run(self._frames(frames))
        assert self.alarms.found == [], self.alarms.found

    async def _frames(self, frames: Sequence[bytes]) -> None:
        wire = AsgiWire(bytes_max=LIMITS.connection_buffer_bytes_max)
        connection = Connection(self._engine.services, Principal(), wire)
        for frame in frames:
            connection.receive(frame)
            connection.read_ends()
            await asyncio.sleep(0)
        for _ in range(20):  # whatever was asked of the store is answered
            await asyncio.sleep(0)
        connection.lost()
        wire.close(1000, "")
        async with asyncio.timeout(SECONDS_MAX):
            while (payload := await wire.next()) is not None:
                assert decode_server(payload) is not None
        assert len(self._engine.services.connections) == 0


@contextmanager
def running() -> Iterator[Sequence[Target]]:
    """The targets of a server that runs while the block does."""
    with asyncio.Runner() as runner:
        world = _World(runner)
        with world.running():
            requests = st.tuples(
                _METHODS,
                st.builds(_path, st.sampled_from(_templates()), _NAMES),
                near(*[query.encode() for query in _QUERIES]),
                st.dictionaries(st.sampled_from(_HEADERS), text_near(*samples.HEADER_VALUES, "Bearer x"), max_size=4),
                st.lists(json_near(*_BODIES), max_size=2),
            )
            frames = st.lists(json_near(*samples.CLIENT_FRAMES), max_size=8)
            yield (
                Target("requests", requests, world.attempt_request),
                Target("connection", frames, world.attempt_frames),
            )


def _templates() -> list[str]:
    services = build_services(MemoryStore(limits=LIMITS), Access(), limits=LIMITS)
    return sorted({getattr(route, "path", "/") for route in build_routes(services)} - {"/v1/ws"})


def _path(template: str, name: str) -> str:
    return template.replace("{name:path}", name).replace("{path:path}", name)
