"""`respond` in place of a `StreamingResponse`: the same bytes, but the client may go away and come again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from tests.integration.embed.host import Hosted, hosted, until
from tests.integration.embed.steps import Steps, ended
from unbroken import Unbroken

pytestmark = pytest.mark.anyio


def application(unbroken: Unbroken, steps: Steps, begun: list[str]) -> FastAPI:
    app = FastAPI()
    app.include_router(unbroken.router, prefix="/streams")

    async def source(key: str) -> AsyncIterator[str]:
        begun.append(key)
        async for text in steps.source():
            yield text

    @app.get("/answer/{key:path}")
    async def answer(key: str) -> StreamingResponse:
        return await unbroken.respond(source(key), key, media_type="text/markdown")

    return app


async def read(host: Hosted, path: str, characters: int) -> str:
    """So many characters of a response, which is then given up."""
    text = ""
    async with host.client.stream("GET", path) as response:
        assert response.status_code == 200
        async for part in response.aiter_text():
            text += part
            if len(text) >= characters:
                return text
    return text


async def test_a_client_that_comes_again_gets_everything_from_the_start_once() -> None:
    unbroken, steps, begun = Unbroken("memory:"), Steps(), list[str]()
    async with hosted(application(unbroken, steps, begun)) as host:
        steps.step("one ", "two ")
        assert await read(host, "/answer/a", 8) == "one two "
        await until("nobody watches", lambda: unbroken.services.hub.subscriptions == 0)
        steps.step("three ")
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(read(host, "/answer/a", 1_000))
            second = tasks.create_task(read(host, "/answer/a", 1_000))
            await until("both watch", lambda: unbroken.services.hub.subscriptions == 2)
            steps.step("four")
            steps.finish()
        assert (first.result(), second.result()) == ("one two three four", "one two three four")
        assert (await host.client.get("/answer/a")).text == "one two three four"
        assert begun == ["a"]
        assert (await ended(unbroken, "a"))[0].head == 4


async def test_its_headers_name_the_stream_and_keep_proxies_from_holding_it_back() -> None:
    unbroken, steps = Unbroken("memory:"), Steps()
    steps.finish()
    async with hosted(application(unbroken, steps, [])) as host:
        response = await host.client.get("/answer/chat/höhe 1")
        assert response.headers["content-type"].startswith("text/markdown")
        assert response.headers["x-accel-buffering"] == "no"
        assert "no-transform" in response.headers["cache-control"]
        name = response.headers["unbroken-stream"]
        view = (await host.client.get(f"/streams/v1/streams/{name}")).json()
        assert (view["stream"], str(view["epoch"])) == ("chat/höhe 1", response.headers["unbroken-epoch"])


async def test_what_was_yielded_before_a_failure_is_sent_and_the_state_tells_of_it() -> None:
    unbroken = Unbroken("memory:")
    app = FastAPI()
    app.include_router(unbroken.router, prefix="/streams")

    async def source() -> AsyncIterator[str]:
        yield "half"
        raise RuntimeError

    @app.get("/answer")
    async def answer() -> StreamingResponse:
        return await unbroken.respond(source(), "a")

    async with hosted(app) as host:
        assert (await host.client.get("/answer")).text == "half"
        assert (await host.client.get("/streams/v1/streams/a")).json()["state"] == "failed"


async def test_a_slow_client_holds_nobody_up_and_costs_no_memory() -> None:
    """The client reads nothing: the run goes on to its end all the same."""
    unbroken = Unbroken("memory:")
    app = FastAPI()
    app.include_router(unbroken.router, prefix="/streams")

    async def source() -> AsyncIterator[str]:
        for _ in range(400):
            yield "x" * 50_000

    @app.get("/answer")
    async def answer() -> Any:
        return await unbroken.respond(source(), "a")

    async with hosted(app) as host, host.client.stream("GET", "/answer") as response:
        info, texts = await ended(unbroken, "a")
        assert (info.state.value, len(texts)) == ("completed", 400)
        received = 0
        async for part in response.aiter_bytes():
            received += len(part)
        assert received == 400 * 50_000


async def test_a_stop_with_open_responses_interrupts_and_ends_them() -> None:
    unbroken, steps = Unbroken("memory:"), Steps()
    async with hosted(application(unbroken, steps, []), timeout_graceful_shutdown=1) as host:
        steps.step("one")
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read_to_any_end(host))
            await until("it watches", lambda: unbroken.services.hub.subscriptions == 1)
            await host.stop()
        assert reading.result() in {"one", ""}
    assert steps.left.is_set()


async def _read_to_any_end(host: Hosted) -> str:
    text = ""
    try:
        async with host.client.stream("GET", "/answer/a") as response:
            async for part in response.aiter_text():
                text += part
    except httpx2.HTTPError:
        pass  # the server cut it off: the client comes again
    return text
