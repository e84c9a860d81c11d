"""Hostile content in every place where the page shows what is stored, cut in every way: nothing happens."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx2
import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e.hostile import HUGE, IN_NAMES, PAYLOADS, TURNING, Trap
from tests.e2e.page_tasks import SPITE
from tests.e2e.screen import PATIENCE_MILLISECONDS
from tests.e2e.writer import Writer
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INTEG-004")]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VIEWS = ("text", "markdown", "list", "raw")
CUTS = int(os.environ.get("UNBROKEN_HOSTILE_CUTS", "1"))
"""In how many places a payload is cut at most; 2 takes some minutes."""

_DRAW = (HERE / "hostile_draw.js").read_text()
_UNFOLD = """async () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  for (let frame = 0; frame < 3; frame += 1) await new Promise((done) => requestAnimationFrame(done));
}"""
_SINK = (HERE / "hostile_sink.js").read_text()


@pytest.fixture(scope="module")
async def server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("hostile")
    environment = {"PYTHONPATH": str(ROOT)}
    async with ServerProcess(folder, arguments=("--tasks", "tests.e2e.page_tasks"), environment=environment) as process:
        yield process


def every_cut(text: str) -> Iterable[list[str]]:
    """`text` whole, character by character, and in pieces cut at every place."""
    yield [text]
    yield list(text)
    for count in range(1, CUTS + 1):
        for places in itertools.combinations(range(1, len(text)), count):
            yield [text[start:end] for start, end in itertools.pairwise((0, *places, len(text)))]


async def draw_every_cut(trap: Trap) -> None:
    await trap.page.goto(trap.screen.url)
    cases = [pieces for text in PAYLOADS.values() for pieces in every_cut(text)]
    drawn, wrong = await trap.page.evaluate(_DRAW, [cases, VIEWS, TURNING])
    assert wrong == []
    assert drawn == len(cases) * len(VIEWS)
    assert await trap.wrong() == []


async def draw_what_is_huge(trap: Trap) -> None:
    await trap.page.goto(trap.screen.url)
    for text in HUGE.values():
        third = len(text) // 3
        cases = [[text], [text[:third], text[third:]]]
        _, wrong = await trap.page.evaluate(_DRAW, [cases, VIEWS, TURNING])
        assert wrong == []
    assert await trap.wrong() == []


async def refuse_the_sink(trap: Trap) -> None:
    """The policy of the page itself stops a slip of ours: without it the traps above would see nothing of it."""
    await trap.page.goto(trap.screen.url)
    assert await trap.page.evaluate(_SINK) == "TypeError"
    assert any("require-trusted-types-for" in one for one in await trap.screen.violations())


async def fill(server: ServerProcess, mark: str) -> dict[str, str]:
    """Streams, a session and a run whose every text is hostile; their names."""
    names = {kind: f"{mark}-{kind} {IN_NAMES}" for kind in ("stream", "session", "run")}
    async with httpx2.AsyncClient(base_url=f"{server.url}/v1/", timeout=60, trust_env=False) as http:
        metadata = {"title": SPITE, "<b>": SPITE}
        session = await http.put(f"sessions/{quote(names['session'])}", json={"metadata": metadata})
        assert session.is_success, session.text
        async with Writer(server.url, quote(names["stream"])) as writer:
            await writer.create(session=names["session"], content_type="text/markdown", metadata=metadata)
            for kind in ("message", "reasoning", "stdout", "stderr"):
                await writer.append([{"kind": kind, "text": f"{text}\n\n"} for text in PAYLOADS.values()])
            await writer.append([{"kind": "status", "json": {text: text}} for text in PAYLOADS.values()])
            await writer.close("failed", **{"<img src=x onerror=alert(1)>": SPITE, "error": {"a": [SPITE]}})
        body = {"task": "spiteful", "name": names["run"], "session": names["session"], "arguments": {"words": SPITE}}
        run = await http.post("runs", json=body)
        assert run.is_success, run.text
    return names


async def visit_every_place(
    trap: Trap, server: ServerProcess, names: Mapping[str, str], views: Iterable[str] = VIEWS
) -> None:
    page = trap.page
    stream, session, run = (quote(names[kind], safe="") for kind in ("stream", "session", "run"))
    for place, mark in [
        *((f"stream/{stream}?view={view}", "stream") for view in views),
        (f"stream/{run}?view=text", "run-card"),
        (f"stream/{run}?view=list", "run-card"),
        (f"session/{session}", "run-card"),
        ("new", "runnable"),
        (f"new?type=task&name=spiteful&session={session}", "start-form"),
        (f"new?type=task&name={quote(IN_NAMES)}", "main"),
        (f"stream/{quote('<img src=x onerror=alert(1)>')}", "notice"),
        ("<img src=x onerror=alert(1)>", "main"),
    ]:
        await page.goto("about:blank")
        await page.goto(f"{server.url}/#/{place}")
        found = page.locator("#main") if mark == "main" else page.get_by_test_id(mark).first
        await found.wait_for(timeout=PATIENCE_MILLISECONDS)
        await page.evaluate(_UNFOLD)
        if mark == "stream":
            await expect(page.get_by_test_id("content")).to_contain_text("alert(1)", timeout=PATIENCE_MILLISECONDS)
            await page.get_by_test_id("end").wait_for(timeout=PATIENCE_MILLISECONDS)
        assert await trap.wrong() == [], place
    await page.get_by_test_id("menu").dispatch_event("click")
    await expect(page.get_by_test_id("stream-link").first).to_contain_text("⟦RLO⟧", timeout=PATIENCE_MILLISECONDS)
    assert await trap.wrong() == []


async def answer_the_question(trap: Trap, server: ServerProcess, names: Mapping[str, str]) -> None:
    """A form whose fields have the names of what every form has, filled in and sent; then the run fails."""
    page = trap.page
    await page.goto(f"{server.url}/#/stream/{quote(names['run'], safe='')}")
    question = page.get_by_test_id("question")
    await question.wait_for(timeout=PATIENCE_MILLISECONDS)
    for name in ("constructor", "querySelector", "submit"):
        field = question.locator(f"[data-field={name}] input")
        await expect(field).to_have_value(SPITE)
        await field.fill(f"typed {name}")
    await question.get_by_test_id("send").click()
    await page.locator("[data-testid=run-card][data-state=failed]").wait_for(timeout=PATIENCE_MILLISECONDS)
    async with httpx2.AsyncClient(base_url=f"{server.url}/v1/", timeout=60, trust_env=False) as http:
        messages = (await http.get(f"messages/{quote(names['run'])}")).raise_for_status().json()["messages"]
    response = next(one["json"]["response"] for one in messages if one["kind"] == "input")
    assert response["querySelector"] == "typed querySelector"
    assert response["constructor"] == "typed constructor"
    assert response["toString"] == SPITE
    assert await trap.wrong() == []


async def test_nothing_happens_however_a_payload_is_cut(server: ServerProcess, page: Page) -> None:
    await draw_every_cut(await Trap.watch(page, server.url))


async def test_nothing_breaks_however_large_or_deep_it_is(server: ServerProcess, page: Page) -> None:
    await draw_what_is_huge(await Trap.watch(page, server.url))


async def test_the_policy_stops_what_would_make_html_of_text(server: ServerProcess, page: Page) -> None:
    await refuse_the_sink(await Trap.watch(page, server.url))


async def test_nothing_happens_in_any_place(server: ServerProcess, page: Page) -> None:
    names = await fill(server, "a")
    trap = await Trap.watch(page, server.url)
    await visit_every_place(trap, server, names)
    await answer_the_question(trap, server, names)


async def test_nothing_happens_while_it_is_streamed(server: ServerProcess, page: Page) -> None:
    trap = await Trap.watch(page, server.url)
    async with Writer(server.url, "live/a") as writer:
        await writer.create(content_type="text/markdown")
        for view in ("text", "markdown"):
            await trap.screen.open(writer.stream, view)
            await trap.screen.until_badge("live")
            for text in PAYLOADS.values():
                await writer.append([{"text": piece} for piece in text])
                await writer.append([{"text": "\n\n"}])
            await writer.words(1)
            await expect(trap.page.get_by_test_id("content")).to_contain_text(
                f"w{writer.acked - 1} ", timeout=PATIENCE_MILLISECONDS
            )
            assert await trap.wrong() == []


async def test_a_file_is_saved_and_never_opened(server: ServerProcess, page: Page) -> None:
    names = await fill(server, "b")
    trap = await Trap.watch(page, server.url)
    await page.goto(f"{server.url}/#/stream/{quote(names['run'], safe='')}")
    file = page.get_by_test_id("file")
    await file.wait_for(timeout=PATIENCE_MILLISECONDS)
    async with page.expect_download(timeout=PATIENCE_MILLISECONDS) as saved:
        await file.click()
    assert await anyio.Path(await (await saved.value).path()).read_bytes() == b"<script>alert(1)</script>"
    assert await trap.wrong() == []
    async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http:
        document = b"<script>alert(1)</script><img src=x onerror=alert(1)><iframe src=//evil.example></iframe>shown"
        await http.put("/v1/stream/page.html", content=document, headers={"Content-Type": "text/html"})
    await page.goto(f"{server.url}/v1/stream/page.html?offset=-1")
    assert await page.evaluate("window.origin") == "null", "it is a document of no origin"
    assert await page.evaluate("window.__executed") == []
    assert [url for url in trap.foreign if "evil" in url] == []


async def test_nothing_happens_in_firefox(server: ServerProcess, firefox: Browser) -> None:
    context = await firefox.new_context()
    try:
        trap = await Trap.watch(await context.new_page(), server.url)
        await draw_every_cut(trap)
        names = await fill(server, "c")
        await visit_every_place(trap, server, names, ["markdown"])
        await answer_the_question(trap, server, names)
        await refuse_the_sink(trap)
    finally:
        await context.close()
