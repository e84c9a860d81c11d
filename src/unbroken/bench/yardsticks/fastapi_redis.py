"""A yardstick of `unbroken bench`: resumable streams as they are usually written by hand, with FastAPI and redis-py.

`/produce/S` adds each message to a Redis stream and acknowledges it; `/view/S` reads that stream from its beginning with a
blocking read of its own, one per viewer. uvicorn runs it; it never touches our own code.
"""

from __future__ import annotations

import os
from typing import cast

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool

Found = list[tuple[str, list[tuple[str, dict[str, str]]]]]
app = FastAPI()
pool = BlockingConnectionPool.from_url(
    os.environ.get("UNBROKEN_BENCH_REDIS", "redis://127.0.0.1:6379"), max_connections=2_000, decode_responses=True
)
redis = Redis(connection_pool=pool)


@app.websocket("/produce/{stream}")
async def produce(socket: WebSocket, stream: str) -> None:
    """One producer: every message is in Redis before it is acknowledged."""
    await socket.accept()
    await socket.send_json({"ready": True})
    try:
        while True:
            text = await socket.receive_text()
            place = await redis.xadd(f"stream:{stream}", {"text": text})
            await socket.send_json({"ack": place})
    except WebSocketDisconnect:
        return


@app.websocket("/view/{stream}")
async def view(socket: WebSocket, stream: str) -> None:
    """One viewer: everything from the beginning, then live."""
    await socket.accept()
    await socket.send_json({"ready": True})
    key, after = f"stream:{stream}", "0"
    try:
        while True:
            found = cast("Found", await redis.xread({key: after}, count=100, block=1_000))
            for _, entries in found:
                for place, fields in entries:
                    await socket.send_json({"id": place, "text": fields["text"]})
                    after = place
    except (WebSocketDisconnect, RuntimeError):
        return
