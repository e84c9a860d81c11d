"""A stream is shared from the page: a link is made, opened by a stranger, and ended, and its secret goes nowhere else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e.screen import PATIENCE_MILLISECONDS, Screen
from tests.e2e.writer import Writer
from tests.support.server import ServerProcess
from unbroken.client import Client
from unbroken.identity import Grant, Verb

pytestmark = pytest.mark.anyio

TOKEN = "a-token-for-this-test-only"
ROOT = str(Path(__file__).parents[2])
TASKS = ("--tasks", "tests.e2e.page_tasks")
STREAM = "build/42 ä#?"
IN_PATH = "build/42%20%C3%A4%23%3F"
KEPT = "JSON.stringify([{...localStorage}, {...sessionStorage}, history.state, document.cookie, location.href])"


class Viewer:
    """One person at the page: what it shows, and every address that it asked for."""

    def __init__(self, page: Page, screen: Screen) -> None:
        self.page = page
        self.screen = screen
        self.addresses: list[str] = []
        page.on("request", lambda request: self.addresses.append(request.url.partition("#")[0]))
        page.on("websocket", lambda socket: self.addresses.append(socket.url))

    async def enter(self, token: str) -> None:
        """Hand the server's question for a token what it wants."""
        form = self.page.get_by_test_id("token-form")
        await form.get_by_label("Token").fill(token)
        await form.get_by_role("button").click()

    async def make(self, lasts: str, label: str = "") -> str:
        """Make a link in the open dialog; its address."""
        await self.page.get_by_test_id("share-lasts").select_option(label=lasts)
        await self.page.get_by_test_id("share-label").fill(label)
        await self.page.get_by_test_id("share-make").click()
        field = self.page.get_by_test_id("share-link")
        await expect(field).to_be_focused(timeout=PATIENCE_MILLISECONDS)
        return await field.input_value()

    async def kept(self) -> str:
        """All that the browser keeps for the page, and its address."""
        return str(await self.page.evaluate(KEPT))


@contextlib.asynccontextmanager
async def viewer(
    browser: Browser, url: str, *, granted: tuple[str, ...] = (), width: int = 1280
) -> AsyncIterator[Viewer]:
    """Somebody in a browser profile of their own."""
    context = await browser.new_context(permissions=list(granted), viewport={"width": width, "height": 860})
    try:
        page = await context.new_page()
        yield Viewer(page, await Screen.watch(page, url))
    finally:
        await context.close()


@pytest.mark.scenario("SEC-002")
async def test_a_link_made_on_the_page_shows_a_stranger_the_stream_until_it_is_revoked(
    tmp_path: Path, browser: Browser
) -> None:
    async with (
        ServerProcess(tmp_path, arguments=TASKS, environment={"UNBROKEN_TOKEN": TOKEN, "PYTHONPATH": ROOT}) as server,
        Writer(server.url, IN_PATH, token=TOKEN) as writer,
        Client(server.url, token=TOKEN) as operator,
        viewer(browser, server.url, granted=("clipboard-read", "clipboard-write")) as owner,
        viewer(browser, server.url) as guest,
        viewer(browser, server.url) as lesser,
    ):
        await writer.create()
        await writer.words(10)
        await operator.tokens.share(STREAM, label="made elsewhere", expires_in=6000)
        await operator.tokens.share("another", label="of another stream", expires_in=6000)
        await owner.page.goto(f"{server.url}/#/stream/{IN_PATH}")
        await owner.enter(TOKEN)
        await owner.screen.until_words(10)
        secret, address = await _share(owner)
        await _is_narrow(operator)
        await guest.page.goto(address)
        await guest.screen.until_words(10)
        await writer.words(10)
        await guest.screen.until_words(20)
        await guest.screen.until_badge("live")
        await expect(guest.page.get_by_test_id("guest")).to_be_visible()
        for control in ("share", "cancel", "new-run"):
            assert await guest.page.get_by_test_id(control).count() == 0, control
        assert guest.page.url == f"{server.url}/#/stream/{IN_PATH}"
        await _refused_to_act(server, secret)

        await _revoke(owner)
        await expect(guest.page.get_by_test_id("link-over")).to_contain_text("revoked", timeout=PATIENCE_MILLISECONDS)
        assert await guest.screen.words() == [], "what was shown is gone"
        await guest.page.reload()
        await guest.page.get_by_test_id("link-over").wait_for(timeout=PATIENCE_MILLISECONDS)
        await guest.screen.picture("share-over")
        await _watch_a_run(server, operator, guest)
        await writer.words(5)
        await owner.screen.until_words(25)

        await _nowhere_else(owner, guest, secret)
        assert secret not in server.output
        await _with_less(server, operator, lesser)


async def _is_narrow(operator: Client) -> None:
    """What was made reads the stream that has this name now, for an hour."""
    (made,) = [one for one in (await operator.tokens.list()).tokens if one.label == "for Ann"]
    assert made.expires is not None
    assert made.expires - made.created == 3_600_000
    assert made.grants is not None
    epoch = (await operator.state(STREAM)).epoch
    assert [(one.name, one.verbs, one.prefix, one.epoch) for one in made.grants] == [(STREAM, ["read"], False, epoch)]


async def _nowhere_else(owner: Viewer, guest: Viewer, secret: str) -> None:
    """The secret was in no address that was asked for, and stands nowhere but in what the guest's own tab keeps."""
    for one in (owner, guest):
        assert any(asked.startswith("ws://") for asked in one.addresses)
        assert [asked for asked in one.addresses if secret in asked or TOKEN in asked] == []
        assert secret not in await one.page.content()
        assert one.screen.clean(allowed=["401", "WebSocket"]) == []
        assert await one.screen.violations() == []
    assert secret not in await owner.kept()
    local, session, *rest = json.loads(await guest.kept())
    assert [name for name, value in session.items() if "ubl_" in value] == ["unbroken.token"], "for this tab alone"
    assert "ubl_" not in json.dumps([local, rest])


async def _share(owner: Viewer) -> tuple[str, str]:
    """By keyboard: open the dialog, make a link, copy it, leave; gives the secret and the address."""
    page = owner.page
    await page.get_by_test_id("share").focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_test_id("share-dialog")
    items = dialog.get_by_test_id("share-item")
    await expect(items).to_have_count(1, timeout=PATIENCE_MILLISECONDS)
    await expect(items).to_contain_text("made elsewhere")
    await expect(dialog.get_by_label("The link lasts")).to_be_focused()
    address = await owner.make("an hour", "for Ann")
    _, _, secret = address.partition("?token=")
    assert address == f"{owner.screen.url}/#/stream/{IN_PATH}?token={secret}"
    await expect(items).to_have_count(2)
    await expect(dialog.get_by_test_id("share-words")).to_contain_text("Whoever has it can read this stream until")
    await page.keyboard.press("Tab")
    await expect(dialog.get_by_test_id("share-copy")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_test_id("share-said")).to_have_text("Copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == address
    await owner.screen.picture("share-light")
    assert secret not in await page.content(), "it is the value of a field and no part of the document"
    box = await dialog.bounding_box()
    assert box is not None
    await dialog.get_by_test_id("share-words").hover()  # a text is chosen, beyond the edge of the dialog
    await page.mouse.down()
    await page.mouse.move(box["x"] - 20, box["y"] + 20)
    await page.mouse.up()
    await expect(page.get_by_test_id("share-link")).to_have_value(address)
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="detached")
    await expect(page.get_by_test_id("share")).to_be_focused()
    return secret, address


async def _revoke(owner: Viewer) -> None:
    """End the link made before, and leave by the button."""
    page = owner.page
    await page.get_by_test_id("share").click()
    assert await page.get_by_test_id("share-link").count() == 0, "a link is shown once"
    await page.get_by_test_id("share-item").filter(has_text="for Ann").get_by_role("button", name="Revoke").click()
    await expect(page.get_by_test_id("share-said")).to_contain_text("Revoked", timeout=PATIENCE_MILLISECONDS)
    await expect(page.get_by_test_id("share-item")).to_have_count(1)
    await expect(page.get_by_role("heading", name="Links to this stream")).to_be_focused()
    await page.get_by_test_id("share-close").click()
    await page.get_by_test_id("share-dialog").wait_for(state="detached")
    await expect(page.get_by_test_id("share")).to_be_focused()


async def _refused_to_act(server: ServerProcess, secret: str) -> None:
    """What is not offered is not allowed either."""
    async with httpx2.AsyncClient(base_url=f"{server.url}/v1/", headers={"Authorization": f"Bearer {secret}"}) as http:
        answers = [
            await http.post(f"messages/{IN_PATH}", json={"messages": [{"text": "no"}]}),
            await http.post(f"cancel/{IN_PATH}", json={}),
            await http.post(
                "tokens", json={"kind": "link", "grants": [{"name": STREAM, "verbs": ["read"]}], "expires_in": 6000}
            ),
        ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]


async def _watch_a_run(server: ServerProcess, operator: Client, guest: Viewer) -> None:
    """Of a run that asks something the question is shown, and nothing to answer, pause or stop it with."""
    async with httpx2.AsyncClient(base_url=f"{server.url}/v1/", headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        run = {"task": "invitation", "name": "asks", "session": "plans", "arguments": {}}
        (await http.post("runs", json=run)).raise_for_status()
    made = await operator.tokens.share("asks", expires_in=6000)
    await guest.page.goto(f"{server.url}/#/stream/asks?token={made.token}")
    card = guest.page.get_by_test_id("run-card")
    await expect(card).to_have_attribute("data-state", "asks", timeout=PATIENCE_MILLISECONDS)
    await expect(card.get_by_test_id("question")).to_contain_text("Its owner has not answered yet")
    await guest.screen.picture("share-run")
    for control in ("share", "cancel", "pause", "send"):
        assert await guest.page.get_by_test_id(control).count() == 0, control
    await _starts_nothing(guest.page)
    another = await operator.tokens.share(STREAM, expires_in=6000)
    await guest.page.goto(f"{server.url}/#/stream/{IN_PATH}?token={another.token}")
    await guest.screen.until_words(20)  # the connection was opened with the link before, and shows nothing of this


async def _starts_nothing(page: Page) -> None:
    """Of its session what can be read is shown, and nowhere on the page there is a way to start something."""
    ways = page.locator("a[href*='#/new'], [data-testid=picker], [data-testid=start-form], [data-testid=nothing]")
    await page.get_by_test_id("session-link").click()
    await page.get_by_test_id("session").get_by_test_id("run-card").wait_for(timeout=PATIENCE_MILLISECONDS)
    assert await ways.count() == 0
    await page.goto(f"{page.url.partition('#')[0]}#/session/empty")
    await page.locator("[data-testid=session][data-phase=shown]").wait_for(timeout=PATIENCE_MILLISECONDS)
    assert await ways.count() == 0
    await page.goto(f"{page.url.partition('#')[0]}#/new?type=task&name=survey")
    await page.get_by_test_id("welcome").wait_for(timeout=PATIENCE_MILLISECONDS)
    await page.keyboard.press("n")
    await page.keyboard.press("?")
    await expect(page.get_by_test_id("help")).not_to_contain_text("new run")
    await page.keyboard.press("Escape")
    assert await ways.count() == 0
    assert page.url.endswith("#/new?type=task&name=survey")


async def _with_less(server: ServerProcess, operator: Client, reader: Viewer) -> None:
    """Who may not hand on is told why; who may, but not for long, is told that too."""
    page = reader.page
    reads = await operator.tokens.create([Grant(STREAM, frozenset({Verb.READ}))])
    manages = await operator.tokens.create([Grant(STREAM, frozenset({Verb.READ, Verb.MANAGE}))], expires_in=600)
    await page.goto(f"{server.url}/#/stream/{IN_PATH}")
    await reader.enter(reads.token)
    await page.get_by_test_id("share").click()
    await page.get_by_test_id("share-make").click()
    error = page.get_by_test_id("share-error")
    await expect(error).to_contain_text("more than what may be handed on", timeout=PATIENCE_MILLISECONDS)
    assert await page.get_by_test_id("share-link").count() == 0
    await page.get_by_test_id("share-none").wait_for()
    await operator.tokens.revoke(reads.id)
    await page.get_by_test_id("token-form").wait_for(timeout=PATIENCE_MILLISECONDS)
    assert await page.get_by_test_id("share-dialog").count() == 0, "it goes with the right to be here"
    await reader.enter(manages.token)
    await page.get_by_test_id("share").click()
    await reader.make("a week")
    await expect(page.get_by_test_id("share-words")).to_contain_text("ends that early because your own access does")
    assert reader.screen.clean(allowed=["401", "403", "WebSocket"]) == []


async def test_sharing_fits_phones_in_both_themes(server: ServerProcess, browser: Browser) -> None:
    stream = "chat/a-rather-long-name-of-a-stream/answer"
    for scheme, width in (("light", 390), ("dark", 320)):
        async with viewer(browser, server.url, width=width) as owner, Writer(server.url, stream) as writer:
            page, screen = owner.page, owner.screen
            await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            await writer.create()
            await writer.words(40)
            await screen.open(stream)
            await screen.until_words(40)
            await screen.picture(f"share-{scheme}-{width}-button")
            await page.get_by_test_id("share").click()
            dialog = page.get_by_test_id("share-dialog")
            await owner.make("an hour", "x" * 100)
            address = await owner.make("a day", "for the review")
            await screen.picture(f"share-{scheme}-{width}")
            assert await screen.overflow() <= 0
            box = await dialog.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            for control in await dialog.get_by_role("button").all():
                assert (await control.bounding_box() or {"height": 0})["height"] >= 44
            await page.goto(address)
            await page.get_by_test_id("guest").wait_for(timeout=PATIENCE_MILLISECONDS)
            await screen.until_words(40)
            assert await screen.overflow() <= 0
            await screen.picture(f"share-{scheme}-{width}-guest")
            assert screen.clean() == []
            assert await screen.violations() == []
