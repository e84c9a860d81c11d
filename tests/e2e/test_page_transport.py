"""Where the network lets no WebSocket through, the page goes on over SSE with the same promises."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page

from tests.e2e.screen import NO_WEBSOCKETS, Screen
from tests.e2e.writer import Writer
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


async def test_without_websockets_a_stream_survives_reloads_over_sse(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    await page.add_init_script(NO_WEBSOCKETS)
    async with Writer(server.url, "sse/a") as writer:
        await writer.create(kind="run")
        await writer.words(20)
        await screen.open(writer.stream)
        await screen.until_words(20)
        for _ in range(2):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(writer.words(40), name="writer")
                tasks.create_task(page.reload(), name="reload")
            rules = await screen.until_resumed()
            assert "· 0 lost" in rules[0], rules
            await screen.until_words(writer.acked)
            assert await screen.words() == list(range(writer.acked))
            await screen.until_badge("live")
            assert "over SSE" in await page.get_by_test_id("badge").inner_text()
        await writer.close("completed")
        await screen.until_badge("ended")
        assert await screen.words() == list(range(writer.acked))
    assert screen.clean() == []
    assert await screen.violations() == []
