"""The page asks for a token where the server wants one, and waits for what is not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.writer import Writer
from tests.support.server import ServerProcess
from unbroken.client import Client

pytestmark = pytest.mark.anyio

TOKEN = "a-token-for-this-test-only"
FORBIDDEN = "{ get() { throw new DOMException('no', 'SecurityError') } }"
FULL = "{ value: { getItem: () => null, setItem() { throw new DOMException('full', 'QuotaExceededError') } } }"


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
            await page.set_viewport_size({"width": 390, "height": 860})
            detail = page.locator(".badge-detail")
            await detail.wait_for(timeout=PATIENCE_MILLISECONDS)
            assert await detail.evaluate("(one) => one.clientWidth") > 80, (
                "there is room on a phone for why it is refused"
            )
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


@pytest.mark.scenario("SEC-002")
async def test_a_share_link_shows_its_stream_and_its_secret_is_nowhere_but_in_a_header(
    tmp_path: Path, page: Page
) -> None:
    async with ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": TOKEN}) as server:
        screen = await Screen.watch(page, server.url)
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.on("websocket", lambda socket: addresses.append(socket.url))
        async with Writer(server.url, "shared/a", token=TOKEN) as writer, Client(server.url, token=TOKEN) as owner:
            await writer.create()
            await writer.words(10)
            made = await owner.tokens.share("shared/a", expires_in=600)
            await page.goto(f"{server.url}/#/stream/{writer.stream}?token={made.token}")
            await screen.until_words(10)
            await screen.until_badge("live")
            assert page.url == f"{server.url}/#/stream/{writer.stream}"
            assert made.token not in await page.content()
            await page.reload()
            await screen.until_words(10)
            await owner.tokens.revoke(made.id)
            await page.get_by_test_id("token-form").wait_for(timeout=PATIENCE_MILLISECONDS)
        assert [address for address in addresses if made.token in address and "#" not in address] == []
        assert made.token not in server.output
        assert screen.clean(allowed=["401", "WebSocket"]) == []


async def test_a_share_link_is_read_where_the_browser_keeps_nothing(tmp_path: Path, context: BrowserContext) -> None:
    async with (
        ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": TOKEN}) as server,
        Writer(server.url, "shared/a", token=TOKEN) as writer,
        Client(server.url, token=TOKEN) as owner,
    ):
        await writer.create()
        await writer.words(10)
        made = await owner.tokens.share("shared/a", expires_in=600)
        for storage in (FORBIDDEN, FULL):
            page = await context.new_page()
            screen = await Screen.watch(page, server.url)
            await page.add_init_script(f"Object.defineProperty(window, 'sessionStorage', {storage})")
            await page.goto(f"{server.url}/#/stream/{writer.stream}?token={made.token}")
            await screen.until_words(10)
            assert page.url == f"{server.url}/#/stream/{writer.stream}"
            assert screen.clean(allowed=["WebSocket"]) == []
            await page.close()
