"""Twelve MCP tool calls at once in a real browser, against a real MCP server, over a reload and a closed page."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.test_runs_page import beyond, card, get, post, until_ended, until_state
from tests.integration.mcp.calls import SERVER
from tests.integration.mcp.test_calls import http_server
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

CALLS = 12
STEPS = 150


@asynccontextmanager
async def serving(directory: Path, how: str) -> AsyncIterator[ServerProcess]:
    async with AsyncExitStack() as stack:
        entry: dict[str, object] = {"command": sys.executable, "args": [str(SERVER), "stdio"]}
        if how == "http":
            entry = {"type": "http", "url": f"http://127.0.0.1:{await stack.enter_async_context(http_server())}/mcp"}
        config = directory / ".mcp.json"
        config.write_text(json.dumps({"mcpServers": {"good": entry | {"unbroken": {"shared": 4}}}}))
        arguments = ("--mcp-config", str(config))
        yield await stack.enter_async_context(ServerProcess(directory, arguments=arguments))


@pytest.mark.scenario("TC-E2E-002")
@pytest.mark.parametrize("how", ["stdio", "http"])
async def test_twelve_tool_calls_survive_a_reload_and_a_closed_page_and_each_ends_right(
    tmp_path: Path, page: Page, how: str
) -> None:
    async with serving(tmp_path, how) as server:
        screen = await Screen.watch(page, server.url)
        for number in range(CALLS):
            arguments = {"steps": STEPS + number, "pause": 0.05}
            name = f"call/{number}"
            await post(server, "runs", tool="slow", server="good", arguments=arguments, name=name, session="many")
        await page.goto(f"{server.url}/#/session/many")
        for number in range(CALLS):
            await until_state(card(page, f"call/{number}"), "running")
            await beyond(card(page, f"call/{number}"), 0)
        await page.reload()
        for number in range(CALLS):
            await beyond(card(page, f"call/{number}"), 5)
        await screen.picture(f"tool-calls-{how}")
        context = page.context
        await page.close()
        page = await context.new_page()
        await page.goto(f"{server.url}/#/session/many")
        for number in range(CALLS):
            found = card(page, f"call/{number}")
            await until_state(found, "completed")
            result = found.get_by_test_id("result")
            if await result.get_attribute("open") is None:
                await result.locator("summary").click()
            await expect(result).to_contain_text(f"{STEPS + number} steps", timeout=PATIENCE_MILLISECONDS)
        for number in range(CALLS):
            await until_ended(server, f"call/{number}")
            messages = (await get(server, f"messages/call/{number}"))["messages"]
            kinds = [one["kind"] for one in messages]
            assert (kinds.count("started"), kinds.count("sent"), kinds.count("result")) == (1, 1, 1)
            assert kinds[-1] == "result"
            done = [one["json"]["progress"] for one in messages if one["kind"] == "progress"]
            assert done == sorted(done), "progress is in order"
