"""The applications in examples/ run, and do what they are there to show."""

from __future__ import annotations

import asyncio
import sys
from importlib import reload
from pathlib import Path
from types import ModuleType

import pytest
from playwright.async_api import Page, expect

import examples.fastapi_chat
import examples.starlette_mount
from tests.docs.blocks import ROOT
from tests.docs.test_examples import SECONDS_MAX, run
from tests.integration.embed.host import Hosted, hosted
from tests.support.server import ServerProcess
from unbroken import Client

pytestmark = pytest.mark.anyio

ANSWER = "You asked: why? That is a good question, and here are a hundred numbers. " + "".join(
    f"{number} " for number in range(1, 101)
)


def fresh(module: ModuleType, directory: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> ModuleType:
    """The module, imported anew with a store in `directory`."""
    monkeypatch.setenv("UNBROKEN_STORE", f"sqlite:///{directory}/example.db")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return reload(module)


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir() if path.is_file()} == {
        "fastapi_chat.py",
        "chat.html",
        "starlette_mount.py",
        "client.py",
    }


async def test_the_chat_answers_once_however_often_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fresh(examples.fastapi_chat, tmp_path, monkeypatch, PAUSE_SECONDS="0.001")
    async with hosted(module.app) as host:
        asked = await host.client.post("/chat/1", params={"question": "why?"})
        assert asked.json() == {"stream": "chat/1", "state": "running"}
        for _ in range(2):
            assert (await host.client.get("/chat/1", params={"question": "why?"})).text == ANSWER


async def test_the_chat_page_survives_reloads_in_the_middle_of_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Page
) -> None:
    module = fresh(examples.fastapi_chat, tmp_path, monkeypatch, PAUSE_SECONDS="0.02")
    async with hosted(module.app) as host:
        await page.goto(str(host.client.base_url))
        await page.locator("input").fill("why?")
        await page.locator("button").click()
        for word in ("question", " 20 ", " 60 "):
            await expect(page.locator("#answer")).to_contain_text(word)
            assert await running(host)
            await page.reload()
        await expect(page.locator("#answer")).to_contain_text(" 100 ", timeout=SECONDS_MAX * 1000)
        assert await page.locator("#answer").text_content() == ANSWER


async def running(host: Hosted) -> bool:
    """Whether the one stream is still being written: else the reload proves nothing."""
    (view,) = (await host.client.get("/streams/v1/streams")).json()["streams"]
    return bool(view["state"] == "running")


async def test_the_mounted_task_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fresh(examples.starlette_mount, tmp_path, monkeypatch)
    async with hosted(module.app) as host, Client(f"{host.client.base_url}/streams") as client:
        assert (await host.client.post("/tasks/a")).status_code == 202
        async with asyncio.timeout(SECONDS_MAX):
            seen = [received.json async for received in client.follow("tasks/a")]
        assert seen == [{"done": done, "of": 50} for done in range(1, 51)]
        view = await client.state("tasks/a")
        assert (view.kind, view.state) == ("task", "completed")


async def test_the_client_produces_and_watches(server: ServerProcess, tmp_path: Path) -> None:
    done = await run([sys.executable, str(ROOT / "examples" / "client.py"), server.url], tmp_path)
    assert done.stdout == "".join(f"line {number}\n" for number in range(1, 101)), done.stderr
