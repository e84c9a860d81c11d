"""Owns a small honest streaming server, and the switch that makes it break one promise at a time.

The tests of the survival kit start it as a process: a kit that does not catch each sabotage, or that accuses the honest
server, is worth nothing. It speaks the plain SSE and WebSocket that the kit's adapters of these names expect.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

__all__ = ["Sabotage"]

UNCOMMITTED_MAX = 8
DROPPED_MAX = 3
"""With two producers that each wait for their answer, one of the last three is acknowledged."""
VIEWER_QUEUE_MAX = 4
LATE_FROM = 10


class Sabotage(StrEnum):
    """What is wrong with it."""

    NONE = "none"
    ACK_BEFORE_COMMIT = "ack_before_commit"
    MEMORY_ONLY = "memory_only"
    LOSES_THE_LAST = "loses_the_last"
    DOUBLES_AT_RECONNECT = "doubles_at_reconnect"
    SKIPS_FOR_SLOW_READERS = "skips_for_slow_readers"
    REORDERS_ON_RESUME = "reorders_on_resume"
    DIFFERENT_FOR_LATE_JOINERS = "different_for_late_joiners"
    SWALLOWS_THE_END = "swallows_the_end"
    FORGETS_NUMBERS = "forgets_numbers"


@dataclass
class Log:
    """One stream: its entries in memory and in a file."""

    file: Path
    entries: list[str] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    ended: str = ""
    committed: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    viewers: set[asyncio.Queue[int]] = field(default_factory=set)


class Logs:
    """All streams of a folder."""

    def __init__(self, folder: Path, sabotage: Sabotage) -> None:
        self.folder = folder
        self.sabotage = sabotage
        self.logs: dict[str, Log] = {}
        for file in sorted(folder.glob("*.log")):
            self._load(file)

    def _load(self, file: Path) -> None:
        lines = [line for line in file.read_text().split("\n")[:-1] if line]
        rows = [json.loads(line) for line in lines]
        entries = [row for row in rows if "payload" in row]
        if self.sabotage is Sabotage.LOSES_THE_LAST and not any("ended" in row for row in rows):
            entries = entries[: max(len(entries) - DROPPED_MAX, 0)]
        log = Log(file, [row["payload"] for row in entries])
        log.keys = {row["key"]: place for place, row in enumerate(entries, 1)}
        log.committed = len(log.entries)
        log.ended = next((row["ended"] for row in rows if "ended" in row), "")
        self.logs[file.stem] = log

    def create(self, name: str) -> None:
        log = self.logs.setdefault(name, Log(self.folder / f"{name}.log"))
        if self.sabotage is not Sabotage.MEMORY_ONLY:
            log.file.touch()

    async def append(self, name: str, payload: str, key: str) -> int | None:
        """The place of the message, or None when the stream takes nothing."""
        log = self.logs.get(name)
        if log is None or log.ended:
            return None
        if key in log.keys and self.sabotage is not Sabotage.FORGETS_NUMBERS:
            return log.keys[key]
        log.entries.append(payload)
        log.keys[key] = place = len(log.entries)
        late = self.sabotage is Sabotage.ACK_BEFORE_COMMIT
        if not late or len(log.entries) - log.committed >= UNCOMMITTED_MAX:
            self._commit(log)
        async with log.changed:
            log.changed.notify_all()
        for queue in log.viewers:
            if not queue.full():
                queue.put_nowait(place)
        return place

    def _commit(self, log: Log) -> None:
        if self.sabotage is Sabotage.MEMORY_ONLY:
            return
        keys = {place: key for key, place in log.keys.items()}
        with log.file.open("a") as file:
            for place in range(log.committed + 1, len(log.entries) + 1):
                file.write(json.dumps({"payload": log.entries[place - 1], "key": keys.get(place, "")}) + "\n")
        log.committed = len(log.entries)

    async def end(self, name: str) -> bool:
        log = self.logs.get(name)
        if log is None:
            return False
        if not log.ended:
            self._commit(log)
            log.ended = "completed"
            if self.sabotage is not Sabotage.MEMORY_ONLY:
                with log.file.open("a") as file:
                    file.write(json.dumps({"ended": log.ended}) + "\n")
        async with log.changed:
            log.changed.notify_all()
        return True

    def delete(self, name: str) -> None:
        log = self.logs.pop(name, None)
        if log is not None:
            log.file.unlink(missing_ok=True)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def items(self, log: Log, after: int) -> AsyncIterator[tuple[int, str] | str]:
        """Messages with their places, and at last how the stream ended."""
        if self.sabotage is Sabotage.SKIPS_FOR_SLOW_READERS:
            async for place in self._queued(log, after):
                yield place, log.entries[place - 1]
        place = after
        if after and self.sabotage is Sabotage.DOUBLES_AT_RECONNECT:
            place -= 1
        late = after == 0 and len(log.entries) >= LATE_FROM
        first, second = place + 1, place + 2
        swapped = bool(after) and len(log.entries) >= second and self.sabotage is Sabotage.REORDERS_ON_RESUME
        while self.sabotage is not Sabotage.SKIPS_FOR_SLOW_READERS:
            while place < len(log.entries):
                place += 1
                shown = {first: second, second: first}.get(place, place) if swapped else place
                payload = log.entries[shown - 1]
                if late and self.sabotage is Sabotage.DIFFERENT_FOR_LATE_JOINERS and shown == LATE_FROM // 2:
                    payload = payload[:-1] + "!"
                yield shown, payload
            if log.ended and self.sabotage is not Sabotage.SWALLOWS_THE_END:
                break
            async with log.changed:
                await log.changed.wait_for(partial(self._news, log, place))
        yield log.ended

    def _news(self, log: Log, place: int) -> bool:
        over = bool(log.ended) and self.sabotage is not Sabotage.SWALLOWS_THE_END
        return len(log.entries) > place or over

    async def _queued(self, log: Log, after: int) -> AsyncIterator[int]:
        """As somebody would write it who has never met a slow reader: a small queue, and what does not fit is dropped."""
        queue: asyncio.Queue[int] = asyncio.Queue(VIEWER_QUEUE_MAX)
        place, head = after, len(log.entries)
        log.viewers.add(queue)
        try:
            for place in range(after + 1, head + 1):
                yield place
            while not (log.ended and queue.empty()):
                try:
                    async with asyncio.timeout(0.05):
                        place = await queue.get()
                except TimeoutError:
                    continue
                yield place
        finally:
            log.viewers.discard(queue)


class Addresses:
    """The face of HTTP and SSE: each stream has an address."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def stream(self, request: Request) -> Response:
        name, logs = request.path_params["name"], self._logs
        match request.method:
            case "PUT":
                logs.create(name)
            case "POST":
                key = request.headers.get("idempotency-key", "")
                if await logs.append(name, (await request.body()).decode(), key) is None:
                    return Response(status_code=409)
            case "DELETE":
                logs.delete(name)
            case _ if name not in logs.logs:
                return Response(status_code=404)
            case _:
                after = int(request.headers.get("last-event-id", "0"))
                return StreamingResponse(self._events(logs.logs[name], after), media_type="text/event-stream")
        return Response(status_code=204)

    async def _events(self, log: Log, after: int) -> AsyncIterator[str]:
        async for item in self._logs.items(log, after):
            if isinstance(item, str):
                yield f"event: end\ndata: {item}\n\n"
            else:
                yield f"id: {item[0]}\ndata: {item[1]}\n\n"

    async def end(self, request: Request) -> Response:
        return Response(status_code=204 if await self._logs.end(request.path_params["name"]) else 409)


def application(logs: Logs) -> Starlette:
    """Both faces."""
    addresses = Addresses(logs)
    return Starlette(
        routes=[
            WebSocketRoute("/", Socket(logs)),
            Route("/{name}", addresses.stream, methods=["GET", "PUT", "POST", "DELETE"]),
            Route("/{name}/end", addresses.end, methods=["POST"]),
        ]
    )


class Socket:
    """The WebSocket face: one request for each connection."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        try:
            await self._answer(socket, await socket.receive_json())
            await socket.close()
        except (WebSocketDisconnect, RuntimeError):
            return

    async def _answer(self, socket: WebSocket, request: dict[str, Any]) -> None:
        name, logs = request["stream"], self._logs
        match request["type"]:
            case "create":
                logs.create(name)
            case "append":
                place = await logs.append(name, request["payload"], f"{request['producer']}/{request['number']}")
                if place is None:
                    await socket.send_json({"type": "refused", "error": "no such stream, or it has ended"})
                    return
                await socket.send_json({"type": "ok", "position": place})
                return
            case "end":
                await logs.end(name)
            case "delete":
                logs.delete(name)
            case "read" | "subscribe":
                await self._stream(socket, request)
                return
        await socket.send_json({"type": "ok"})

    async def _stream(self, socket: WebSocket, request: dict[str, Any]) -> None:
        log = self._logs.logs.get(request["stream"])
        if log is None:
            await socket.send_json({"type": "refused", "error": "no such stream"})
            return
        if request["type"] == "read":
            for place, payload in enumerate(log.entries, 1):
                await socket.send_json({"type": "message", "payload": payload, "position": place})
            await socket.send_json({"type": "ok", "state": log.ended})
            return
        async for item in self._logs.items(log, int(request.get("cursor") or 0)):
            if isinstance(item, str):
                await socket.send_json({"type": "end", "state": item})
            else:
                place, payload = item
                await socket.send_json({"type": "message", "payload": payload, "position": place, "cursor": str(place)})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--sabotage", type=Sabotage, default=Sabotage.NONE)
    parser.add_argument("--certificate", type=Path)
    options = parser.parse_args()
    app = application(Logs(options.directory, options.sabotage))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", ssl_certfile=options.certificate)


if __name__ == "__main__":
    main()
