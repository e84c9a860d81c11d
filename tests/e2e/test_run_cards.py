"""What a card of a run says and takes: refusals of the server at their fields, what was long ago, what is no run at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Page, expect

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.test_runs_page import ARGUMENTS, ROOT, card, get, post, start, until_state
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path, arguments=ARGUMENTS, environment={"PYTHONPATH": str(ROOT)}) as process:
        yield process


async def test_a_command_of_a_terminal_is_no_run_that_could_be_tried_again(server: ServerProcess, page: Page) -> None:
    screen = await Screen.watch(page, server.url)
    async with httpx2.AsyncClient(base_url=server.url) as http:
        body = {"kind": "run", "lease": {"id": "run-1"}, "lease_seconds": 60}
        (await http.put("/v1/streams/job", json=body)).raise_for_status()
    await post(server, "cancel/job")
    await screen.open("job")
    await expect(page.get_by_test_id("cancel")).to_have_attribute("title", "asked for by local")
    close = {"state": "timed_out", "reason": {"limit": "idle", "seconds": 3}}
    await post(server, "messages/job", messages=[], producer={"id": "run-1", "epoch": 0, "seq": 0}, close=close)
    await expect(page.get_by_test_id("end")).to_contain_text("idle", timeout=PATIENCE_MILLISECONDS)
    assert await page.get_by_test_id("run-card").count() == 0
    assert await page.get_by_test_id("retry").count() == 0
    assert screen.clean() == []


async def test_an_answer_that_the_server_refuses_is_complained_about_at_its_field_and_mended(
    server: ServerProcess, page: Page
) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "invitation", "asks")
    await screen.open("asks")
    found = card(page, "asks")
    await until_state(found, "asks")
    await found.get_by_label("guests").fill("1")
    await found.get_by_label("code").fill("ABC")
    await found.get_by_test_id("send").click()
    await expect(found.get_by_test_id("field-error")).to_have_text("this is less than the minimum of 2")
    await expect(found.get_by_label("guests")).to_be_focused()
    await found.get_by_label("guests").fill("2")
    await found.get_by_label("code").fill("abc")
    await page.keyboard.press("Enter")
    await expect(found.get_by_test_id("field-error")).to_have_text('this does not match "^[A-Z]{3}$"')
    await found.get_by_label("code").fill("XYZ")
    await page.keyboard.press("Enter")
    await until_state(found, "completed")
    await expect(found.get_by_test_id("answered")).to_contain_text("XYZ")
    assert screen.clean(allowed=["400"]) == []


@pytest.mark.parametrize("where", ["stream", "session"])
async def test_what_a_run_said_long_ago_is_known_to_its_card_after_a_reload(
    server: ServerProcess, page: Page, where: str
) -> None:
    screen = await Screen.watch(page, server.url)
    await start(server, "talkative", "long", "s", words=2_000)
    async with asyncio.timeout(PATIENCE_MILLISECONDS / 1000):
        while (await get(server, "streams/long"))["head"] < 2_000:
            await asyncio.sleep(0.02)
    for _ in range(2):
        await page.goto(f"{server.url}/#/{where}/{'long' if where == 'stream' else 's'}")
        await page.reload()
        found = card(page, "long")
        await until_state(found, "running")
        await expect(found.get_by_test_id("progress-message")).to_have_text("three of ten")
        await expect(found.get_by_test_id("progress")).to_have_attribute("aria-valuenow", "3")
    assert screen.clean() == []
