"""Nothing on the page is cut off, broken in mid-word or pushed out of the window, however wide that is."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.writer import Writer
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

LONG = "very/" + "long-name-without-end" * 9
TABLE = "|left|centre|`code`|long|\n|-|-|-|-|\n|a|b|c|" + "on and " * 60 + "|\n"
LINES = """(selector) => [...document.querySelectorAll(selector)].map((element) => {
  const range = document.createRange();
  range.selectNodeContents(element);
  return new Set([...range.getClientRects()].filter(({width}) => width > 0).map(({bottom}) => Math.round(bottom / 8))).size;
})"""
"""In how many lines the text of each element stands."""
CUT = """() => [...document.querySelectorAll(".stream-head button, .stream-foot > *, .session .stream-head *")]
  .filter((element) => element.getClientRects().length > 0)
  .filter((element) => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline"
    || element.getBoundingClientRect().right > window.innerWidth)
  .map((element) => element.textContent)"""
"""What of the head and foot is cut off, or out of the window."""


async def test_what_is_shown_is_whole(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "tables") as writer, Writer(server.url, LONG) as other:
        await writer.create(session="a session", content_type="text/markdown")
        await writer.append([{"text": f"{TABLE}\n\n"}])
        await writer.words(30)
        await other.create()
        for width in (1280, 700, 390):
            await page.set_viewport_size({"width": width, "height": 860})
            await screen.open(writer.stream)
            await screen.until_words(29)  # the space behind the last one goes
            assert await page.evaluate(LINES, "th") == [1, 1, 1, 1], f"a short word is in one line at {width}"
            assert await page.evaluate(CUT) == []
            await screen.open(writer.stream, "list")
            await page.get_by_test_id("message").first.wait_for(timeout=PATIENCE_MILLISECONDS)
            box = await page.locator(".row .payload").first.bounding_box()
            assert box is not None
            assert box["width"] > 250, f"there is room for what was written at {width}"
            await page.goto(f"{server.url}/#/session/a%20session")
            await page.locator("[data-testid=session][data-phase=shown]").wait_for(timeout=PATIENCE_MILLISECONDS)
            assert await page.evaluate(CUT) == []
            await screen.open(other.stream)
            await page.get_by_test_id("share").wait_for(timeout=PATIENCE_MILLISECONDS)
            assert await page.evaluate(CUT) == []
            assert await screen.overflow() <= 0
    assert screen.clean() == []
