"""uvicorn is told to stop while somebody watches: everybody is sent away, and the application ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.integration.embed.host import CEILING_SECONDS
from tests.integration.embed.steps import Steps
from tests.support.server import ServerProcess
from unbroken import Unbroken
from unbroken.identity import Principal
from unbroken.messages import StreamState
from unbroken.protocol.frames import PROTOCOL
from unbroken.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]


class Watched(ServerProcess):
    def _command(self) -> list[str]:
        module = "tests.integration.embed.watched"
        return [sys.executable, "-m", module, str(self.port), f"sqlite:///{self.database}"]

    async def stop(self, number: signal.Signals) -> None:
        self._signal(number)
        await self._wait()


@asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[tuple[Watched, httpx2.AsyncClient]]:
    async with Watched(directory, environment={"PYTHONPATH": str(ROOT)}) as process:
        timeout = httpx2.Timeout(CEILING_SECONDS)
        async with httpx2.AsyncClient(base_url=process.url, timeout=timeout, trust_env=False) as client:
            yield process, client


async def close_code(socket: ClientConnection) -> int:
    """With which code the server closed it, after what was still on its way."""
    with suppress(ConnectionClosed):
        async for _ in socket:
            pass
    assert socket.close_code is not None
    return socket.close_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_whoever_watches_is_sent_away_and_the_application_ends(tmp_path: Path, number: signal.Signals) -> None:
    async with watched(tmp_path) as (process, client), asyncio.timeout(3 * CEILING_SECONDS):
        url = process.url.replace("http", "ws", 1) + "/streams/v1/ws"
        async with (
            client.stream("GET", "/answer") as answer,
            client.stream("GET", "/streams/v1/messages/answer?live=sse") as events,
            connect(url, subprotocols=[Subprotocol(PROTOCOL)]) as socket,
        ):
            parts, lines = answer.aiter_text(), events.aiter_lines()
            assert await anext(parts) == "one "
            assert await anext(lines) == "retry: 1000"
            await socket.recv()
            await process.stop(number)
            with pytest.raises(httpx2.RemoteProtocolError):
                await anext(parts)  # cut off, so that nobody takes it for the whole
            assert ": draining" in [line async for line in lines]
            assert await close_code(socket) == 1012
    assert await state_of(process, "answer") == (StreamState.INTERRUPTED, '{"cause":"server_stopped"}')


async def state_of(process: Watched, name: str) -> tuple[StreamState, str]:
    store = SQLiteStore(process.database)
    await store.open()
    try:
        found = await store.get(Principal(), name)
        assert found is not None
        return found.state, found.reason
    finally:
        await store.close()


async def test_the_handlers_that_were_there_are_called_and_come_back() -> None:
    heard: list[int] = []

    def before(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    with handled(signal.SIGTERM, before), handled(signal.SIGINT, signal.SIG_IGN):
        unbroken, steps = Unbroken("memory:"), Steps()
        async with unbroken.lifespan():
            await unbroken.start(steps.source(), "a")
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "who ignores it goes on ignoring it"
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
            async with asyncio.timeout(CEILING_SECONDS):
                await unbroken.services.stopping.wait()
            assert not steps.left.is_set(), "runs go on until the lifespan ends"
        assert signal.getsignal(signal.SIGTERM) is before


async def test_a_handler_that_was_put_in_front_stays_and_ours_only_hands_on() -> None:
    heard: list[int] = []
    with handled(signal.SIGTERM, lambda number, _frame: heard.append(number)):
        unbroken = Unbroken("memory:")
        async with unbroken.lifespan():
            ours = signal.getsignal(signal.SIGTERM)
            assert callable(ours)
            front = partial(ours)
            signal.signal(signal.SIGTERM, front)
        assert signal.getsignal(signal.SIGTERM) is front
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]


async def test_outside_the_main_thread_signals_are_left_alone() -> None:
    def live() -> object:
        async def enter() -> object:
            async with Unbroken("memory:").lifespan():
                return signal.getsignal(signal.SIGTERM)

        return asyncio.run(enter())

    with handled(signal.SIGTERM, lambda *_: None):
        before = signal.getsignal(signal.SIGTERM)
        assert await asyncio.to_thread(live) is before


@contextmanager
def handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Inside the block the signal has this handler."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
