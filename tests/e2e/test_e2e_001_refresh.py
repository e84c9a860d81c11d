"""A stream in a real browser survives the reload, the server's death and the reader's own ways, message for message."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser, Page

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.writer import Writer
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

RELOADS = 6
DURING = 40
BETWEEN = 20


@pytest.mark.scenario("TC-E2E-001")
async def test_a_stream_that_is_being_written_survives_reloads(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "build/refresh") as writer:
        await writer.create(kind="run")
        await screen.open(writer.stream)
        await writer.words(BETWEEN)
        await screen.until_words(BETWEEN)
        for reload in range(RELOADS):
            before = writer.acked
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(writer.words(DURING), name="writer")
                tasks.create_task(page.reload(), name="reload")
            assert writer.acked == before + DURING, "the writer wrote while the page was reloaded"
            rules = await screen.until_resumed()
            assert len(rules) == 1
            assert "· 0 lost" in rules[0], rules
            assert await screen.violations() == []
            await screen.until_words(writer.acked)
            assert await screen.words() == list(range(writer.acked)), f"after reload {reload + 1}"
            await screen.picture(f"reload-{reload + 1}")
            await writer.words(BETWEEN)
            await screen.until_words(writer.acked)
        await writer.close("completed", exit_code=0)
        await screen.until_badge("ended")
        assert await page.get_by_test_id("state").inner_text() == "completed"
        assert "exit code 0" in await page.get_by_test_id("end").inner_text()
        await page.reload()
        await screen.until_badge("ended")
        await screen.until_words(writer.acked)
        assert await screen.words() == list(range(writer.acked)), "the ended stream is whole after a last reload"
        assert await page.get_by_test_id("state").inner_text() == "completed"
        await screen.picture("ended")
    assert screen.clean() == []
    assert await screen.violations() == []


async def test_the_page_goes_on_over_the_death_and_restart_of_the_server(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "build/killed") as writer:
        await writer.create(kind="run")
        await screen.open(writer.stream)
        await writer.words(60)
        await screen.until_words(60)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.words(60), name="writer")
            await screen.until_words(80)
            await server.kill()
            await screen.until_badge("reconnecting")
            await screen.picture("killed")
            shown = await screen.words()
            assert shown == list(range(len(shown))), "what was received stays readable"
            await server.start()
        assert writer.retries > 0, "the server was away while the writer wrote"
        await page.get_by_test_id("now").or_(page.locator("[data-testid=badge][data-state=live]")).first.click()
        rules = await screen.until_resumed()
        assert "· 0 lost" in rules[0], rules
        await screen.until_words(writer.acked)
        assert await screen.words() == list(range(120))
        await writer.close("failed", exit_code=2)
        await screen.until_badge("ended")
        assert "exit code 2" in await page.get_by_test_id("end").inner_text()
        await screen.picture("killed-and-back")
    assert (
        screen.clean(allowed=["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "WebSocket"])
        == []
    )
    assert await screen.violations() == []


async def test_leaving_cancels_nothing_and_cancelling_asks_once(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "build/cancel") as writer:
        await writer.create(kind="run")
        await writer.words(3)
        await screen.open(writer.stream)
        await screen.until_words(3)
        await page.goto("about:blank")
        assert await writer.state() == "open"
        await screen.open(writer.stream)
        await page.get_by_test_id("cancel").click()
        await page.get_by_test_id("confirm-cancel").get_by_text("Let it run").click()
        await page.get_by_test_id("confirm-cancel").wait_for(state="detached")
        assert await writer.state() == "open"
        await page.get_by_test_id("cancel").click()
        await page.get_by_test_id("confirm").click()
        await screen.until_badge("ended")
        assert await page.get_by_test_id("state").inner_text() == "cancelled"
        assert await writer.state() == "cancelled"
    assert screen.clean() == []


async def test_a_long_stream_begins_at_its_tail_and_is_read_upwards(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "log/long") as writer:
        await writer.create(kind="log")
        for start in range(0, 2000, 500):
            await writer.append([{"kind": "stdout", "text": f"w{number} \n"} for number in range(start, start + 500)])
        await screen.open(writer.stream)
        await screen.until_words(500)
        assert await screen.words() == list(range(1500, 2000))
        surface = page.get_by_test_id("surface")
        await surface.hover()
        for wanted in (1000, 1500, 2000):
            await surface.evaluate("(element) => { element.scrollTop = 0; }")
            await screen.until_words(wanted)
            assert await screen.words() == list(range(2000 - wanted, 2000))
            assert await surface.evaluate("(element) => element.scrollTop") > 0, "the reader's place does not move"
        await writer.append([{"kind": "stdout", "text": f"w{number} \n"} for number in range(2000, 2007)])
        unread = page.get_by_test_id("unread")
        await unread.wait_for(timeout=PATIENCE_MILLISECONDS)
        assert "7 new" in await unread.inner_text()
        await screen.picture("unread")
        await unread.click()
        await unread.wait_for(state="detached")
        await screen.until_words(2007)
        distance = "(element) => element.scrollHeight - element.scrollTop - element.clientHeight"
        assert await surface.evaluate(distance) <= 48
        await page.mouse.wheel(0, -300)
        await page.wait_for_function(
            "(far) => { const e = document.querySelector('.surface');"
            " return e.scrollHeight - e.scrollTop - e.clientHeight > far; }",
            arg=200,
        )
        place = await surface.evaluate("(element) => element.scrollTop")
        await writer.append([{"kind": "stdout", "text": "w2007 \n"}])
        await unread.wait_for(timeout=PATIENCE_MILLISECONDS)
        assert await surface.evaluate("(element) => element.scrollTop") == place, "nothing moves under a reader"
    assert screen.clean() == []


@pytest.mark.parametrize("view", ["text", "markdown", "list"])
async def test_a_page_that_watches_a_long_stream_stays_bounded_and_at_the_tail(
    server: ServerProcess, page: Page, view: str
) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "log/flood") as writer:
        await writer.create(kind="log")
        await screen.open(writer.stream, view)
        shown = page.get_by_test_id("shown")
        for start in range(0, 8000, 500):
            end = start + 500
            await writer.append([{"kind": "stdout", "text": f"w{n} of them\n\n"} for n in range(start, end)])
            await shown.get_by_text(f"{end:,}", exact=True).wait_for(timeout=PATIENCE_MILLISECONDS)
            assert await page.get_by_test_id("unread").count() == 0, "nobody has scrolled away"
        words = await screen.words()
        assert words == list(range(words[0], 8000)), "what is left is dense and reaches the tail"
        assert 3000 <= len(words) <= 5500, "the far end was dropped"
    assert screen.clean() == []


async def test_what_the_layout_does_by_itself_is_no_wish_of_the_reader(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    at_tail = (
        "() => { const e = document.querySelector('.surface');"
        " return e.scrollHeight - e.scrollTop - e.clientHeight < 9; }"
    )
    async with Writer(server.url, "log/layout") as writer:
        await writer.create(kind="log")
        await writer.words(20)
        await screen.open(writer.stream)
        await screen.until_words(20)
        content = page.get_by_test_id("content")
        await content.evaluate(
            "(content) => { const spacer = document.createElement('div');"
            " spacer.style.height = '3000px'; content.prepend(spacer); }"
        )
        await page.wait_for_function(at_tail, timeout=PATIENCE_MILLISECONDS)
        # It shrinks and grows again within one frame, as when finished blocks are measured: the place moves upwards.
        await content.evaluate(
            "(content) => { const spacer = content.firstChild; spacer.style.height = '0';"
            " content.parentElement.scrollTop; spacer.style.height = '3500px'; }"
        )
        await page.wait_for_function(at_tail, timeout=PATIENCE_MILLISECONDS)
        await writer.words(5)
        await screen.until_words(25)
        assert await page.get_by_test_id("unread").count() == 0
    assert screen.clean() == []


PROSE = (
    "Streams that **survive** a reload are `not` magic. They are a log, a cursor and a little patience.\n\n"
    "- one item\n- two *items*\n\n"
)


async def test_a_flood_of_prose_is_followed_to_its_end(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    text = PROSE * 600
    tokens: list[dict[str, object]] = [{"kind": "token", "text": text[at : at + 5]} for at in range(0, len(text), 5)]
    async with Writer(server.url, "chat/flood") as writer:
        await writer.create(content_type="text/markdown")
        await screen.open(writer.stream, "markdown")
        for at in range(0, len(tokens), 20):
            await writer.append(tokens[at : at + 20])
        shown = page.get_by_test_id("shown").get_by_text(f"{len(tokens):,}", exact=True)
        await shown.wait_for(timeout=PATIENCE_MILLISECONDS)
        assert await page.get_by_test_id("unread").count() == 0, "nobody has scrolled away"
        assert (await screen.text()).rstrip().endswith("two items"), "the tail is drawn"
    assert screen.clean() == []


async def test_every_view_shows_the_same_messages(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "views/all") as writer:
        await writer.create(kind="run")
        await writer.words(100)
        await screen.open(writer.stream)
        for view in ("text", "markdown", "list", "raw"):
            await page.get_by_test_id(f"view-{view}").click()
            await page.locator(f"[data-testid=view-{view}][aria-pressed=true]").wait_for()
            await screen.until_words(100)
            assert (await screen.words())[:100] == list(range(100)), view
            await writer.words(20)
            await screen.until_words(writer.acked)
            await page.reload()
            await screen.until_words(writer.acked)
            assert await screen.words() == list(range(writer.acked)), f"{view} after a reload"
    assert screen.clean() == []
    assert await screen.violations() == []


@pytest.mark.parametrize(
    ("scheme", "width", "height"), [("dark", 1200, 800), ("light", 1200, 800), ("dark", 320, 640), ("light", 390, 780)]
)
async def test_both_themes_and_a_phone_show_the_whole_page(
    server: ServerProcess, browser: Browser, scheme: str, width: int, height: int
) -> None:
    phone = width < 700
    context = await browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": height},
        has_touch=phone,
        is_mobile=phone,
    )
    try:
        page = await context.new_page()
        screen = await Screen.watch(page, server.url)
        async with Writer(server.url, "chat/a-rather-long-name-of-a-stream/answer") as writer:
            await writer.create(kind="generation", session="demo")
            await writer.words(200)
            await writer.append([{"kind": "stderr", "text": "warning: " + "long" * 100 + "\n"}])
            await page.goto(server.url)
            await page.get_by_test_id("stream-link").first.click()
            await screen.until_words(200)
            await screen.until_badge("live")
            assert await screen.overflow() <= 0
            ground: str = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            brightness = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
            assert (brightness < 150) if scheme == "dark" else (brightness > 600), ground
            if phone:
                drawer = page.get_by_test_id("streams")
                await drawer.wait_for(state="hidden")
                await page.get_by_test_id("menu").click()
                await drawer.wait_for(state="visible")
                await screen.picture(f"{scheme}-{width}-drawer")
                await page.get_by_test_id("stream-link").first.click()
                await drawer.wait_for(state="hidden")
                box = await page.get_by_test_id("cancel").bounding_box()
                assert box is not None
                assert box["height"] >= 44
            await screen.picture(f"{scheme}-{width}")
        assert screen.clean() == []
        assert await screen.violations() == []
    finally:
        await context.close()


async def test_keys_help_and_filter(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "keys/a") as writer, Writer(server.url, "keys/b") as other:
        await other.create()
        await writer.create()
        await writer.words(50)
        await screen.open(writer.stream, "list")
        await screen.until_words(50)
        await page.keyboard.press("?")
        await page.get_by_test_id("help").wait_for()
        await page.keyboard.press("Escape")
        await page.get_by_test_id("help").wait_for(state="detached")
        await page.keyboard.press("k")
        await page.keyboard.press("k")
        assert await page.locator(".row.current").get_attribute("data-seq") == "49"
        await page.keyboard.press("j")
        assert await page.locator(".row.current").get_attribute("data-seq") == "50"
        await page.keyboard.press("p")
        await page.get_by_test_id("paused").wait_for()
        await writer.words(5)
        await page.locator("[data-testid=lag]", has_text="5").wait_for(timeout=PATIENCE_MILLISECONDS)
        assert len(await screen.words()) == 50
        await page.keyboard.press("p")
        await screen.until_words(55)
        await page.keyboard.press("/")
        await page.keyboard.type("keys/b?")
        assert await page.get_by_test_id("help").count() == 0, "keys are off while typing"
        assert await page.get_by_test_id("stream-link").count() == 0
        await page.keyboard.press("Backspace")
        assert await page.get_by_test_id("stream-link").count() == 1
    assert screen.clean() == []


async def test_offline_is_told_and_over_when_the_network_is_back(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with Writer(server.url, "offline/a") as writer:
        await writer.create()
        await writer.words(20)
        await screen.open(writer.stream)
        await screen.until_words(20)
        await page.context.set_offline(True)
        await page.get_by_test_id("offline").wait_for()
        assert await screen.words() == list(range(20))
        await screen.until_badge("offline")
        await screen.picture("offline")
        await writer.words(20)
        await page.context.set_offline(False)
        await page.get_by_test_id("offline").wait_for(state="detached")
        await screen.until_words(40)
        await screen.until_badge("live")
        assert await screen.words() == list(range(40))
    assert screen.clean(allowed=["ERR_INTERNET_DISCONNECTED"]) == []
