"""The page asks for a token where the server wants one, and runs nothing that a stream holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.writer import Writer
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

TOKEN = "a-token-for-this-test-only"

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "<iframe src=javascript:alert(1)></iframe>",
    "<style>*{display:none}</style>",
    "<base href=//evil.example/>",
    "[x](javascript:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "![x](javascript:alert(1))",
    '![x](https://example.com/"onerror="alert(1))',
    "<javascript:alert(1)>",
    "`<b onclick=alert(1)>x</b>`",
    "\x1b]8;;javascript:alert(1)\x1b\\x\x1b]8;;\x1b\\",
)


async def test_a_link_opened_before_its_stream_began_shows_it_when_it_does(tmp_path: Path, page: Page) -> None:
    async with ServerProcess(tmp_path) as server, Writer(server.url, "early/a") as writer:
        await page.goto(f"{server.url}/#/stream/early/a")
        await page.get_by_text("There is no such stream").wait_for(timeout=PATIENCE_MILLISECONDS)
        await writer.create()
        await writer.words(5)
        await page.get_by_text("w4").wait_for(timeout=PATIENCE_MILLISECONDS)


async def test_a_server_with_a_token_asks_for_it_and_keeps_it_out_of_addresses(tmp_path: Path, page: Page) -> None:
    async with ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": TOKEN}) as server:
        screen = await Screen.watch(page, server.url)
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.on("websocket", lambda socket: addresses.append(socket.url))
        async with Writer(server.url, "secret/a", token=TOKEN) as writer:
            await writer.create()
            await writer.words(10)
            await page.goto(f"{server.url}/#/stream/{writer.stream}")
            form = page.get_by_test_id("token-form")
            await form.wait_for(timeout=PATIENCE_MILLISECONDS)
            assert TOKEN not in await page.content()
            await form.get_by_label("Token").fill("wrong")
            await form.get_by_role("button").click()
            await form.get_by_role("alert").wait_for(timeout=PATIENCE_MILLISECONDS)
            await screen.picture("token")
            await form.get_by_label("Token").fill(TOKEN)
            await form.get_by_role("button").click()
            await screen.until_words(10)
            await screen.until_badge("live")
            await page.reload()
            await screen.until_words(10)
            assert await screen.words() == list(range(10))
        assert any(address.startswith("ws://") for address in addresses)
        assert [address for address in addresses if TOKEN in address] == []
        assert screen.clean(allowed=["401", "WebSocket"]) == []


@pytest.mark.parametrize("view", ["text", "markdown", "list", "raw"])
async def test_hostile_messages_run_nothing(server: ServerProcess, page: Page, view: str) -> None:
    screen = await Screen.watch(page, server.url)
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(server.url) else None)
    async with Writer(server.url, "hostile/a") as writer:
        await writer.create(content_type="text/markdown")
        await screen.open(writer.stream, view)
        # Split at every place: half a tag in one message, the other half in the next.
        for text in HOSTILE:
            pieces = [part for cut in range(len(text) + 1) for part in (text[:cut], text[cut:] + "\n\n") if part]
            await writer.append([{"kind": "message", "text": piece} for piece in pieces])
        await writer.words(1)
        await screen.until_words(1)
        assert screen.dialogs == []
        assert await screen.violations() == []
        assert foreign == []
        inside = page.get_by_test_id("content")
        assert (
            await inside.locator("script, img, svg, iframe, style, base, object, form, [onclick], [onerror]").count()
            == 0
        )
        addresses = await inside.locator("a").evaluate_all("(links) => links.map((link) => link.protocol)")
        assert set(addresses) <= {"http:", "https:", "mailto:"}
        if view != "raw":
            assert "alert(1)" in await screen.text(), "what is hostile is shown, not hidden"
    assert screen.clean() == []
