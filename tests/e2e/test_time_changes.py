"""Time zones change on both sides in mid-stream, and clocks are set back: order stays, and times are told rightly."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx2
import msgspec
import pytest
from playwright.async_api import CDPSession, Page

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.writer import Writer
from tests.support.fake_clock import FakeClock
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

HOUR = 3600
SET_BACK = -90 * 60
SHIFT = """
window.__shift = 0;
(() => {
  const now = Date.now;
  Date.now = () => now() + window.__shift;
})();
"""
"""The reader's wall clock, which a test may set; the browser's monotonic clock stays as it is."""
ROWS = (
    "[...document.querySelectorAll('[data-testid=message]')]"
    ".map((row) => [Number(row.dataset.seq), row.querySelector('time').textContent])"
)
SHOWN_IN_ZONE = f"(wanted) => JSON.stringify({ROWS}) === wanted"
SEEN = "(stream) => JSON.parse(sessionStorage.getItem(`unbroken.seen:${stream}`) ?? '{}').seq"


class Reader:
    """The page in its list view, held against what the server has stored."""

    def __init__(self, page: Page, screen: Screen, zones: CDPSession, server: ServerProcess, stream: str) -> None:
        self.page = page
        self.screen = screen
        self.zone = "Asia/Tokyo"
        self._zones = zones
        self._server = server
        self._stream = stream

    async def move(self, zone: str) -> None:
        """Take the browser to another time zone, at once."""
        self.zone = zone
        await self._zones.send("Emulation.setTimezoneOverride", {"timezoneId": zone})

    async def times(self) -> list[int]:
        """When the server took each message, in milliseconds, by seq."""
        async with httpx2.AsyncClient(trust_env=False) as http:
            page = (await http.get(f"{self._server.url}/v1/messages/{self._stream}", params={"limit": 1000})).json()
        return [message["time"] for message in page["messages"]]

    async def holds(self, count: int) -> None:
        """All messages once, in order, each with its stored time in the reader's present zone."""
        await self.screen.until_words(count)
        assert await self.screen.words() == list(range(count))
        times = await self.times()
        assert len(times) == count
        wanted = [[seq, _clock(time, self.zone)] for seq, time in enumerate(times, 1)]
        text = msgspec.json.encode(wanted).decode()
        await self.page.wait_for_function(SHOWN_IN_ZONE, arg=text, timeout=PATIENCE_MILLISECONDS)
        assert "NaN" not in await self.page.locator("body").inner_text()

    async def notes_on(self, writer: Writer) -> None:
        """Write until the page has noted something newer for its next reload."""
        before = writer.acked
        async with asyncio.timeout(PATIENCE_MILLISECONDS / 1000):
            while await self.page.evaluate(SEEN, writer.stream) <= before:
                await writer.words(1)


def _clock(milliseconds: int, zone: str) -> str:
    then = datetime.fromtimestamp(milliseconds // 1000, UTC).astimezone(ZoneInfo(zone))
    return f"{then:%H:%M:%S}.{milliseconds % 1000:03d}"


@pytest.mark.scenario("ENV-007")
async def test_zones_change_and_clocks_are_set_back_in_mid_stream(tmp_path: Path, page: Page, clock: FakeClock) -> None:
    environment = clock.environment | {"TZ": "Pacific/Auckland"}
    async with ServerProcess(tmp_path, environment=environment) as server, Writer(server.url, "time/zones") as writer:
        screen = await Screen.watch(page, server.url)
        reader = Reader(page, screen, await page.context.new_cdp_session(page), server, writer.stream)
        await page.add_init_script(SHIFT)
        await reader.move("Asia/Tokyo")
        await writer.create(kind="run")
        await writer.words(20)
        await screen.open(writer.stream, "list")
        await reader.holds(20)

        async with asyncio.TaskGroup() as group:  # the reader's zone
            group.create_task(writer.words(30))
            await screen.until_words(25)
            await reader.move("America/New_York")
        await reader.holds(50)

        clock.set(SET_BACK)  # the server's clock
        await writer.words(20)
        await reader.holds(70)
        times = await reader.times()
        assert times[50] < times[49] - HOUR * 1000, "inconclusive: the server's clock was not set back"

        server.environment["TZ"] = "America/St_Johns"  # the server's zone, which a process takes at its start
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.words(30))
            await screen.until_words(80)
            await server.restart()
        await reader.holds(100)
        (rule,) = await screen.until_resumed()
        assert "· 0 lost" in rule, rule

        await page.evaluate(f"window.__shift = {-HOUR * 1000}")  # the reader's clock
        await reader.notes_on(writer)
        await reader.holds(writer.acked)
        await reader.move("Asia/Kathmandu")  # not a whole hour
        await writer.close("completed")
        await screen.until_badge("ended")
        await reader.holds(writer.acked)
        await page.reload()
        await reader.holds(writer.acked)
    assert screen.clean(allowed=["ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "WebSocket"]) == []
