"""The configuration of nginx in the documents, behind which everything still streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.docs.blocks import blocks
from tests.integration.embed.host import CEILING_SECONDS, hosted
from tests.support.requirement import missing
from tests.support.reverse_proxies import find_nginx
from tests.support.server import free_port
from tests.support.speeds import Peer
from unbroken import Unbroken
from unbroken.limits import DEFAULT_LIMITS
from unbroken.protocol.frames import PROTOCOL

pytestmark = pytest.mark.anyio

DOCUMENT = "docs/howto/reverse-proxy.md"
LOCATION, MAP = (block.text for block in blocks(DOCUMENT) if block.language == "nginx")
FRAME = """
daemon off; error_log stderr; pid {directory}/pid;
events {{}}
http {{
    access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory}; types {{ text/event-stream sse; }}
    {map}
    server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""


def test_its_limits_are_those_of_the_server() -> None:
    assert DEFAULT_LIMITS.body_bytes_max == 8 * 1024 * 1024
    assert "client_max_body_size 8m;" in LOCATION
    timeouts = [int(seconds) for seconds in re.findall(r"_timeout (\d+)s;", LOCATION)]
    assert min(timeouts) > max(DEFAULT_LIMITS.heartbeat_seconds, DEFAULT_LIMITS.long_poll_seconds)
    prose = " ".join(Path(__file__).resolve().parents[2].joinpath(DOCUMENT).read_text(encoding="utf-8").split())
    assert f"heartbeat ({DEFAULT_LIMITS.heartbeat_seconds:g} s)" in prose
    assert f"long polls ({DEFAULT_LIMITS.long_poll_seconds:g} s)" in prose


@pytest.fixture
def nginx() -> str:
    """The program: this machine's, or the one that comes with the requirements of the tests."""
    program = find_nginx()
    if program is None:
        missing("nginx")
    return program


@asynccontextmanager
async def proxied(program: str, application_port: int, directory: Path) -> AsyncIterator[int]:
    """nginx in front of an application, with the configuration of the document; its port."""
    port = free_port()
    location = LOCATION.replace("8000", str(application_port))
    assert location != LOCATION
    config = directory / "nginx.conf"
    config.write_text(FRAME.format(directory=directory, map=MAP, port=port, location=location))
    process = await asyncio.create_subprocess_exec(program, "-p", str(directory), "-c", str(config))
    try:
        async with asyncio.timeout(CEILING_SECONDS), httpx2.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    await client.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx2.TransportError:
                    assert process.returncode is None, "nginx did not start"
                    await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def test_everything_streams_through_nginx(nginx: str, tmp_path: Path) -> None:
    unbroken = Unbroken("memory:")
    app = FastAPI()
    app.include_router(unbroken.router, prefix="/streams")
    async with hosted(app) as host, proxied(nginx, host.client.base_url.port or 0, tmp_path) as port:
        origin = {"Origin": f"http://127.0.0.1:{port}"}
        base = f"http://127.0.0.1:{port}/streams"
        async with httpx2.AsyncClient(trust_env=False, timeout=CEILING_SECONDS, headers=origin) as client:
            name = "a%2Fb/c%20d"
            assert (await client.put(f"{base}/v1/streams/{name}")).json()["stream"] == "a/b/c d"
            assert (await client.get(f"{base}/")).headers["content-type"].startswith("text/html")
            async with client.stream("GET", f"{base}/v1/messages/{name}?live=sse") as events:
                lines = events.aiter_lines()
                assert await anext(lines) == "retry: 1000"
                for number in range(3):  # each arrives while the response is open and the next is not written
                    await client.post(f"{base}/v1/messages/{name}", json={"messages": [{"text": f"n{number}"}]})
                    async with asyncio.timeout(CEILING_SECONDS):
                        while f'"text":"n{number}"' not in await anext(lines):
                            pass
        async with connect(
            f"ws://127.0.0.1:{port}/streams/v1/ws", subprotocols=[Subprotocol(PROTOCOL)], additional_headers=origin
        ) as socket:
            peer = Peer(socket)
            await peer.receive("hello")
            await peer.send(type="subscribe", id=1, stream="a/b/c d", after="start")
            assert [message["text"] for message in (await peer.receive("messages"))["messages"]] == ["n0", "n1", "n2"]
