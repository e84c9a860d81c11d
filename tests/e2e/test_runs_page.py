"""Runs in a real browser: started from a form, watched as cards, answered, cancelled and tried again, over every loss."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.e2e.page_tasks import HOSTILE
from tests.e2e.screen import NO_WEBSOCKETS, PATIENCE_MILLISECONDS, Screen
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
ARGUMENTS = ("--lease", "1.5", "--tasks", "tests.support.tasks", "--tasks", "tests.e2e.page_tasks")
SESSION_RUNS = 12


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path, arguments=ARGUMENTS, environment={"PYTHONPATH": str(ROOT)}) as process:
        yield process


async def post(at: ServerProcess, path: str, **body: object) -> Any:
    async with httpx2.AsyncClient(base_url=at.url, timeout=30) as http:
        answer = await http.post(f"/v1/{path}", json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def get(server: ServerProcess, path: str) -> Any:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        return (await http.get(f"/v1/{path}")).raise_for_status().json()


async def start(
    server: ServerProcess, task: str, stream: str, session: str | None = None, /, **arguments: object
) -> None:
    await post(server, "runs", task=task, name=stream, session=session, arguments=arguments)


async def until_ended(server: ServerProcess, name: str) -> Any:
    async with asyncio.timeout(PATIENCE_MILLISECONDS / 1000):
        while (view := await get(server, f"streams/{name}")).get("ended") is None:
            await asyncio.sleep(0.02)
    return view


async def messages(server: ServerProcess, name: str) -> list[Any]:
    return list((await get(server, f"messages/{name}"))["messages"])


async def numbers(server: ServerProcess, name: str) -> list[int]:
    """What a counting run has yielded, as it is stored."""
    found: list[int] = []
    after = "start"
    while messages := (page := await get(server, f"messages/{name}?after={after}"))["messages"]:
        found += [int(one["text"]) for one in messages if one["kind"] == "text"]
        after = page["cursor"]
    return found


def card(page: Page, name: str) -> Locator:
    return page.locator(f"[data-testid=run-card][data-stream='{name}']")


async def until_state(found: Locator, state: str) -> None:
    await expect(found).to_have_attribute("data-state", state, timeout=PATIENCE_MILLISECONDS)


async def done(found: Locator) -> float:
    """How far the progress bar is."""
    value = await found.get_by_test_id("progress").get_attribute("aria-valuenow", timeout=PATIENCE_MILLISECONDS)
    return float(value or 0)


async def beyond(found: Locator, least: float) -> None:
    async with asyncio.timeout(PATIENCE_MILLISECONDS / 1000):
        while await done(found) <= least:
            await asyncio.sleep(0.02)


def shown(text: str) -> list[int]:
    return [int(line) for line in text.split("\n") if line.isdigit()]


async def test_a_file_of_a_run_is_saved_from_its_card_as_it_was_stored(server: ServerProcess, page: Page) -> None:
    await start(server, "reporting", "r", lines=1000)
    await until_ended(server, "r")
    screen = await Screen.watch(page, server.url)
    await screen.open("r")
    file = card(page, "r").get_by_test_id("file").first
    await expect(file).to_contain_text("report.csv", timeout=PATIENCE_MILLISECONDS)
    await page.reload()
    await expect(page.locator("[data-testid=stream-link]")).to_have_count(1)
    async with page.expect_download(timeout=PATIENCE_MILLISECONDS) as downloading:
        await file.click()
    download = await downloading.value
    assert download.suggested_filename == "report.csv"
    saved = await asyncio.to_thread((await download.path()).read_text, encoding="utf-8")
    assert saved == "".join(f"{number},{number**2}\n" for number in range(1000))
    await screen.picture("file")
    (stream,) = [
        one["json"]["stream"] for one in await messages(server, "r") if one["json"].get("name") == "report.csv"
    ]
    async with httpx2.AsyncClient(base_url=server.url) as http:
        assert (await http.delete(f"/v1/streams/{stream}")).status_code == 204
    await file.click()
    await expect(page.get_by_role("alert")).to_contain_text("could not be saved", timeout=PATIENCE_MILLISECONDS)
    assert screen.clean(allowed=("404",)) == []
    assert await screen.violations() == []


async def test_a_run_is_started_once_from_a_form_that_says_what_is_wrong_where(
    server: ServerProcess, page: Page
) -> None:
    screen = await Screen.watch(page, server.url)
    await page.goto(server.url)
    await page.keyboard.press("n")
    await page.get_by_test_id("picker-search").fill("filled in")
    await page.get_by_test_id("runnable").and_(page.locator("[data-name=survey]")).click()
    form = page.get_by_test_id("start-form")
    await form.get_by_test_id("send").click()
    wrong = form.locator("[data-field=name]").get_by_test_id("field-error")
    await expect(wrong).to_contain_text("required", timeout=PATIENCE_MILLISECONDS)
    await expect(form.get_by_label("name")).to_be_focused()
    await form.get_by_label("name").fill("Ann")
    await form.get_by_label("count").fill("many")
    await form.get_by_test_id("send").click()
    wrong = form.locator("[data-field=count]").get_by_test_id("field-error")
    await expect(wrong).to_contain_text("integer", timeout=PATIENCE_MILLISECONDS)
    await form.get_by_label("tags").fill("[1")
    await form.get_by_test_id("send").click()
    await expect(form.locator("[data-field=tags]").get_by_test_id("field-error")).to_contain_text("not JSON")
    await screen.picture("form-errors")
    await form.get_by_label("count").fill("3")
    await form.get_by_label("tags").fill('["a", "b"]')
    await form.get_by_label("size").select_option(label="large")
    await form.get_by_label("loud").check()
    await form.get_by_test_id("send").dblclick()
    found = page.get_by_test_id("run-card")
    await until_state(found, "completed")
    await found.get_by_test_id("result").locator("summary").click()
    for words in ('"name": "Ann"', '"count": 3', '"size": "large"', '"loud": true', '"a"'):
        await expect(found.get_by_test_id("result")).to_contain_text(words)
    assert len((await get(server, "streams"))["streams"]) == 1, "two clicks, one run"
    assert screen.clean(allowed=["400"]) == []
    assert await screen.violations() == []


async def test_each_source_is_a_group_and_one_that_offers_nothing_says_why(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    search = {"type": "tool", "name": "search", "server": "docs", "title": "Search <b>docs</b>"}
    sources = [
        {"type": "program", "runnables": [{"type": "program", "name": "backup"}]},
        {"type": "tool", "server": "docs", "runnables": [search]},
        {"type": "tool", "server": "away", "error": "The server away cannot be started: no such file."},
    ]
    sent: list[Any] = []

    async def refuse(route: Route) -> None:
        sent.append(route.request.post_data_json)
        await route.abort()

    await page.route("**/v1/runnables", lambda route: route.fulfill(json={"sources": sources}))
    await page.route("**/v1/runs", refuse)
    await page.goto(f"{server.url}/#/new?session=s")
    groups = page.get_by_test_id("source").locator("h2")
    await expect(groups).to_have_text(["Programs", "Tools of docs", "Tools of away"], timeout=PATIENCE_MILLISECONDS)
    await expect(page.get_by_test_id("source-error")).to_have_text("The server away cannot be started: no such file.")
    await screen.picture("sources")
    await page.get_by_text("Search <b>docs</b>").click()
    for _ in range(2):
        await page.get_by_test_id("send").click()
        await expect(page.get_by_test_id("form-error")).to_contain_text("cannot be reached")
    assert sent[0] == sent[1], "a start of which nothing was heard is sent again with its key"
    assert {name: sent[0][name] for name in ("tool", "server", "arguments", "session")} == {
        "tool": "search",
        "server": "docs",
        "arguments": {},
        "session": "s",
    }
    await page.get_by_test_id("session-field").fill("t")
    await page.get_by_test_id("send").click()
    await expect(page.get_by_test_id("form-error")).to_contain_text("cannot be reached")
    assert sent[2]["key"] != sent[0]["key"], "another start has another key"
    assert screen.clean(allowed=["ERR_FAILED"]) == []


async def test_twelve_runs_of_a_session_go_on_over_a_reload_and_one_connection(
    server: ServerProcess, page: Page
) -> None:
    screen = await Screen.watch(page, server.url)
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    names = [f"twelve/{number}" for number in range(SESSION_RUNS)]
    for number, name in enumerate(names):
        await start(server, "count", name, "twelve", upto=40 + number, pause=0.3)
    await page.goto(f"{server.url}/#/session/twelve")
    for name in names:
        await beyond(card(page, name), 1)
    before = {name: await done(card(page, name)) for name in names}
    await screen.picture("twelve")
    await page.reload()
    for name in names:
        await beyond(card(page, name), before[name])
        await expect(card(page, name)).to_have_attribute("data-state", "running")
    assert len(sockets) == 2, "one before the reload, one behind it"
    for number, name in enumerate(names):
        await until_state(card(page, name), "completed")
        assert await done(card(page, name)) == 40 + number
        assert await numbers(server, name) == list(range(1, 41 + number))
    await expect(page.get_by_test_id("sums")).to_have_text("12 runs")
    assert len(sockets) == 2
    assert screen.clean() == []
    assert await screen.violations() == []


@pytest.mark.scenario("TC-E2E-003")
async def test_a_task_of_more_than_thirty_seconds_survives_reloads_and_a_closed_page(
    server: ServerProcess, page: Page
) -> None:
    upto = 160  # three messages each: the page holds the whole
    screen = await Screen.watch(page, server.url)
    await start(server, "count", "long", upto=upto, pause=0.2)
    await screen.open("long")
    for least in (15, 35, 55):
        await beyond(card(page, "long"), least)
        before = shown(await screen.text())
        assert before == list(range(1, len(before) + 1))
        await page.reload()
        rules = await screen.until_resumed()
        assert "· 0 lost" in rules[0], rules
    await beyond(card(page, "long"), 75)
    await page.close()
    async with asyncio.timeout(PATIENCE_MILLISECONDS / 1000):
        while len(await numbers(server, "long")) < 100:
            await asyncio.sleep(0.2)
    page = await page.context.new_page()
    screen = await Screen.watch(page, server.url)
    await screen.open("long")
    await beyond(card(page, "long"), 120)
    await page.reload()
    await until_state(card(page, "long"), "completed")
    await screen.until_badge("ended")
    assert await done(card(page, "long")) == upto
    assert shown(await screen.text()) == list(range(1, upto + 1))
    view = await until_ended(server, "long")
    assert view["ended"] - view["created"] > 30_000
    found = await numbers(server, "long")
    assert found == list(range(1, upto + 1))
    assert screen.clean() == []
    assert await screen.violations() == []


async def test_without_websockets_a_session_leaves_the_browser_connections_to_act_with(
    server: ServerProcess, page: Page
) -> None:
    screen = await Screen.watch(page, server.url)
    await page.add_init_script(NO_WEBSOCKETS)
    await start(server, "count", "sse/counts", "sse", upto=40, pause=0.1)
    for number in range(SESSION_RUNS - 1):
        await start(server, "stuck", f"sse/{number}", "sse")
    await page.goto(f"{server.url}/#/session/sse")
    await beyond(card(page, "sse/counts"), 1)
    assert "over SSE" in await page.get_by_test_id("badge").inner_text()
    await until_state(card(page, "sse/counts"), "completed")
    assert await done(card(page, "sse/counts")) == 40
    await card(page, "sse/0").get_by_test_id("card-cancel").click()
    await page.get_by_test_id("confirm").click()
    await until_state(card(page, "sse/0"), "cancelled")
    assert screen.clean() == []


async def test_progress_is_measured_only_where_there_is_a_total(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "unmeasured", "open-ended", upto=1000, pause=0.05)
    await screen.open("open-ended")
    found = card(page, "open-ended")
    await expect(found.get_by_test_id("progress-message")).to_contain_text("page", timeout=PATIENCE_MILLISECONDS)
    assert await found.get_by_test_id("progress").get_attribute("aria-valuenow") is None
    await found.get_by_test_id("lines").locator("summary").click()
    await expect(found.locator(".line-warning").first).to_contain_text("line", timeout=PATIENCE_MILLISECONDS)
    async with asyncio.timeout(PATIENCE_MILLISECONDS / 1000):
        while (await get(server, "streams/open-ended"))["head"] < 150:
            await asyncio.sleep(0.05)
    assert await found.locator(".line").count() <= 40
    await screen.picture("unmeasured")
    await found.get_by_test_id("pause").click()
    await until_state(found, "paused")
    await found.get_by_test_id("pause").click()
    await until_state(found, "running")
    assert screen.clean() == []


async def test_a_run_is_cancelled_only_when_asked_and_run_again_once(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "stuck", "stuck", "s")
    await page.goto(f"{server.url}/#/session/s")
    found = card(page, "stuck")
    await until_state(found, "running")
    await page.goto(f"{server.url}/#/")  # leaving cancels nothing
    await page.goto(f"{server.url}/#/session/s")
    await until_state(found, "running")
    await page.reload()
    await found.get_by_test_id("card-cancel").click()
    await page.get_by_test_id("confirm-cancel").get_by_text("Let it run").click()
    await until_state(found, "running")
    await found.get_by_test_id("card-cancel").click()
    await page.get_by_test_id("confirm").click()
    await until_state(found, "cancelled")
    await found.get_by_test_id("retry").dblclick()
    await until_state(card(page, "stuck.2"), "running")
    assert len((await get(server, "streams"))["streams"]) == 2
    await expect(card(page, "stuck.2")).to_contain_text("again after stuck")
    assert screen.clean() == []


async def test_a_failed_run_says_why_and_is_run_again_from_its_own_page(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "broken", "broken")
    await screen.open("broken")
    found = card(page, "broken")
    await until_state(found, "failed")
    await expect(found.get_by_test_id("bad-end")).to_contain_text("ValueError")
    assert await found.get_by_test_id("may-have-run").count() == 0
    await found.get_by_test_id("retry").click()
    await until_state(card(page, "broken.2"), "failed")
    assert screen.clean() == []


@pytest.mark.parametrize("where", ["stream", "session"])
async def test_a_question_is_answered_after_a_reload_and_shows_who_did(
    server: ServerProcess, page: Page, where: str
) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "curious", "asks", "s")
    await page.goto(f"{server.url}/#/{where}/{'asks' if where == 'stream' else 's'}")
    found = card(page, "asks")
    await until_state(found, "asks")
    await found.get_by_label("Answer").fill("half an ans")
    await page.reload()
    await until_state(found, "asks")
    await screen.picture(f"asks-{where}")
    await found.get_by_test_id("send").click()
    await expect(found.get_by_test_id("field-error")).to_contain_text("required")
    await found.get_by_label("Answer").fill("green")
    await page.keyboard.press("Enter")
    await until_state(found, "completed")
    await expect(found.get_by_test_id("answered")).to_contain_text("green")
    await expect(found.get_by_test_id("answered")).to_contain_text("answered by local")
    await expect(found.get_by_test_id("result")).to_contain_text("you said green")
    await page.reload()
    await expect(found.get_by_test_id("answered")).to_contain_text("green", timeout=PATIENCE_MILLISECONDS)
    assert screen.clean() == []


async def test_a_killed_server_is_come_back_to_and_each_run_goes_on_or_says_that_it_may_have_run(
    server: ServerProcess, page: Page
) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "count", "goes-on", "s", upto=40, pause=0.1)
    await start(server, "plain", "ends", "s", upto=10_000, pause=0.05)
    await start(server, "patient", "asks", "s")
    await page.goto(f"{server.url}/#/session/s")
    await beyond(card(page, "goes-on"), 5)
    await until_state(card(page, "asks"), "asks")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    assert await page.evaluate("document.activeElement.closest('article').dataset.stream") == "ends"
    await server.kill()
    await screen.until_badge("reconnecting")
    await expect(card(page, "goes-on")).to_be_visible()
    await server.start()
    await until_state(card(page, "ends"), "interrupted")
    await expect(card(page, "ends").get_by_test_id("may-have-run")).to_contain_text("It may have run")
    await screen.picture("killed-session")
    await until_state(card(page, "goes-on"), "completed")
    await expect(card(page, "goes-on").get_by_test_id("attempt")).to_have_text("attempt 2")
    assert await numbers(server, "goes-on") == list(range(1, 41))
    await card(page, "asks").get_by_label("Answer").fill("blue")
    await card(page, "asks").get_by_test_id("send").click()
    await until_state(card(page, "asks"), "completed")
    await expect(card(page, "asks").get_by_test_id("result")).to_contain_text("you said blue")
    assert screen.clean(allowed=["ERR_CONNECTION", "WebSocket"]) == []


async def test_hostile_words_of_a_run_run_nothing(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "hostile", "evil", "s", words=HOSTILE)
    found = card(page, "evil")
    for place in ("session/s", "stream/evil", "stream/evil?view=markdown", "stream/evil?view=list"):
        await page.goto(f"{server.url}/#/{place}")
        await until_state(found, "asks")
        await expect(found.get_by_test_id("question")).to_contain_text("<script>alert(2)</script>")
        await found.get_by_test_id("lines").locator("summary").click()
        await found.get_by_test_id("arguments").locator("summary").click()
        assert await page.locator("main").locator("img, script, iframe, [onerror]").count() == 0
    await found.get_by_label("pick").select_option(index=1)
    await found.get_by_test_id("send").click()
    await until_state(found, "completed")
    answer = [
        one["json"]["response"] for one in (await get(server, "messages/evil"))["messages"] if one["kind"] == "input"
    ]
    assert answer == [{HOSTILE: HOSTILE, "pick": HOSTILE}], "what is sent is what was meant, to the letter"
    await page.goto(f"{server.url}/#/new?type=task&name=hostile")
    await page.get_by_test_id("start-form").wait_for()
    assert await page.locator("main").locator("img, script, iframe, [onerror]").count() == 0
    assert screen.dialogs == []
    assert await screen.violations() == []
    assert screen.clean() == []


async def test_a_large_result_is_folded_and_drawn_in_part(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "large", "large", characters=400_000)
    await screen.open("large")
    found = card(page, "large")
    await until_state(found, "completed")
    result = found.get_by_test_id("result")
    assert await result.locator("pre").count() == 0, "folded, it is not drawn"
    await result.locator("summary").click()
    pre = result.locator("pre")
    assert len(await pre.inner_text()) == 4096
    await result.get_by_role("button").click()
    await expect(result).to_contain_text("the first 200,000 of 400,000 characters")
    box = await pre.bounding_box()
    assert box is not None
    assert box["height"] < 300
    assert screen.clean() == []


@pytest.mark.parametrize(
    ("scheme", "width", "height"), [("light", 1280, 860), ("dark", 1280, 860), ("light", 390, 844)]
)
async def test_runs_fit_both_themes_and_a_phone(
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
        session = "a-rather-long-name-of-a-session/of-tools"
        await start(server, "count", "a-rather-long-name/of-a-run", session, upto=1000, pause=0.1)
        await start(server, "unmeasured", "open-ended", session, upto=1000, pause=0.1)
        await start(server, "curious", "asks", session)
        await start(server, "broken", "broken", session)
        await start(server, "survey", "survey", session, name="x" * 300, count=1, tags=["long" * 50])
        for place in (f"session/{session}", "new", "new?type=task&name=survey", "stream/asks", "stream/open-ended"):
            await page.goto(f"{server.url}/#/{place}")
            await page.locator("main section").first.wait_for(timeout=PATIENCE_MILLISECONDS)
            if place.startswith("session"):
                await beyond(card(page, "a-rather-long-name/of-a-run"), 3)
                await until_state(card(page, "survey"), "completed")
            if place.startswith("stream"):
                await page.get_by_test_id("run-card").wait_for(timeout=PATIENCE_MILLISECONDS)
            assert await screen.overflow() <= 0, place
            await screen.picture(f"runs-{scheme}-{width}-{re.sub('[^a-z]+', '-', place)[:16]}")
        if phone:
            box = await card(page, "open-ended").get_by_test_id("pause").bounding_box()
            assert box is not None
            assert box["height"] >= 44
        assert screen.clean() == []
        assert await screen.violations() == []
    finally:
        await context.close()
