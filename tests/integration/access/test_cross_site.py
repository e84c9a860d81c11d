"""Pages of other origins, in two real browsers: whatever they try, with the user's cookie at hand, nothing comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser
from starlette.requests import HTTPConnection

from tests.support.speeds import Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.identity import Principal
from unbroken.messages import NewMessage
from unbroken.requests import NewStream

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

ALICE = Principal("acme", "alice", credential="session:s1")
SECRET = "what only alice may read"
ATTEMPTS = """
async (base) => {
  const within = (work) => Promise.race([work, new Promise((done) => setTimeout(done, 15000, "nothing"))]);
  const sent = (url, init) => fetch(base + url, { credentials: "include", ...init })
    .then(async (answer) => answer.type === "opaque" ? "opaque" : `${answer.status} ${await answer.text()}`, () => "failed");
  const socket = (protocols) => new Promise((done) => {
    const opened = new WebSocket(base.replace("http", "ws") + "/v1/ws", protocols);
    const heard = [];
    opened.onopen = () => opened.send(JSON.stringify({ type: "subscribe", id: 1, stream: "a" }));
    opened.onmessage = ({ data }) => { heard.push(data); if (JSON.parse(data).type === "messages") done(heard.join()); };
    opened.onclose = ({ code }) => done(`closed ${code} ${heard.join()}`);
  });
  const events = () => new Promise((done) => {
    const source = new EventSource(base + "/v1/messages/a?live=sse", { withCredentials: true });
    source.addEventListener("message", ({ data }) => { source.close(); done(data); });
    source.onerror = () => { source.close(); done("failed"); };
  });
  const form = () => new Promise((done) => {
    const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { name: "target" }));
    const how = { method: "POST", action: base + "/v1/cancel/a", target: "target", enctype: "text/plain" };
    const made = document.body.appendChild(Object.assign(document.createElement("form"), how));
    made.append(Object.assign(document.createElement("input"), { name: "{}" }));
    frame.onload = () => done("sent");
    made.submit();
    setTimeout(done, 3000, "sent");
  });
  const body = JSON.stringify({ messages: [{ text: "of a stranger" }] });
  return {
    websocket: await within(socket(["unbroken.v1"])),
    read: await within(sent("/v1/messages/a")),
    events: await within(events()),
    write: await within(sent("/v1/messages/a", { method: "POST", body, headers: { "Content-Type": "application/json" } })),
    plain: await within(sent("/v1/messages/a", { method: "POST", body, mode: "no-cors" })),
    remove: await within(sent("/v1/streams/a", { method: "DELETE" })),
    ticket: await within(sent("/v1/tickets", { method: "POST", body: "{}" })),
    form: await within(form()),
  };
}
"""


class Site:
    """Somebody else's pages, on a port of its own."""

    def __init__(self) -> None:
        self.port = 0
        self.page = "<!doctype html><meta charset=utf-8><title>a site</title><body>"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            body = self.page.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    made = Site()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def identify(connection: HTTPConnection) -> Principal | None:
    return ALICE if connection.cookies.get("session") == "s1" else None


@asynccontextmanager
async def application(*, allowed: str = "") -> AsyncIterator[Running]:
    """An application whose users have a cookie; Alice's stream `a` holds a secret."""
    access = Access(identify=identify, embedded=True, allow_origins=frozenset({allowed} if allowed else ()))
    async with running_server(Speed.TAKEOVER, access=access) as server:
        streams = server.services.streams
        made = (await streams.create(ALICE, "a", NewStream())).stream
        await streams.append_durably(made, [NewMessage(text=SECRET)])
        yield server


async def attempts(browser: Browser, server: Running, where: str, sandboxed: str = "") -> dict[str, Any]:
    """What a page at `where` gets out of the server, in the browser of somebody who is signed in there."""
    context = await browser.new_context()
    try:
        await context.add_cookies([{"name": "session", "value": "s1", "url": server.url}])
        page = await context.new_page()
        await page.goto(where)
        if not sandboxed:
            found = await page.evaluate(f"(base) => ({ATTEMPTS})(base)", server.url)
        else:
            found = await page.evaluate(
                """([text, base]) => new Promise((done) => {
                  addEventListener("message", ({ data }) => done(data));
                  const frame = Object.assign(document.createElement("iframe"), { sandbox: "allow-scripts allow-forms" });
                  const call = `(${text})(${JSON.stringify(base)})`;
                  frame.srcdoc = `<body><script>${call}.then((found) => parent.postMessage(found, "*"))<\\/script>`;
                  document.body.append(frame);
                })""",
                [ATTEMPTS, server.url],
            )
        return dict(found)
    finally:
        await context.close()


async def untouched(server: Running) -> None:
    stream = await server.services.store.get(ALICE, "a")
    assert stream is not None, "it was deleted"
    assert (stream.head, stream.state.value) == (1, "open")
    assert len(server.services.tickets) == 0
    await server.until("connections", 0)


async def no_site_gets_anything(browser: Browser) -> None:
    async with application() as server, site() as other, asyncio.timeout(200):
        for where, sandboxed in (
            (f"http://127.0.0.1:{other.port}/", ""),  # another port of the same host: the cookie goes along
            (f"http://localhost:{other.port}/", ""),  # another host
            (f"http://127.0.0.1:{other.port}/", "sandboxed"),  # null
        ):
            found = await attempts(browser, server, where, sandboxed)
            assert found["websocket"] == "closed 1006 ", (where, sandboxed)
            for attempt in ("read", "events", "write", "remove", "ticket"):
                assert found[attempt] == "failed", (where, sandboxed, attempt, found[attempt])
            assert found["plain"] in {"opaque", "failed"}
            assert SECRET not in str(found)
            await untouched(server)


@pytest.mark.scenario("SEC-004")
async def test_no_site_gets_anything_in_chromium(browser: Browser) -> None:
    await no_site_gets_anything(browser)


@pytest.mark.scenario("SEC-004")
async def test_no_site_gets_anything_in_firefox(firefox: Browser) -> None:
    await no_site_gets_anything(firefox)


@pytest.mark.scenario("SEC-004")
async def test_own_pages_and_listed_ones_get_in(browser: Browser) -> None:
    async with site() as listed, asyncio.timeout(200):
        allowed = f"http://127.0.0.1:{listed.port}"
        async with application(allowed=allowed) as server:
            own = await attempts(browser, server, f"{server.url}/")
            assert SECRET in own["websocket"]
            assert own["read"].startswith("200")
            assert SECRET in own["events"]
            assert own["write"].startswith("200")
            assert own["ticket"].startswith("201")
        async with application(allowed=allowed) as server:
            found = await attempts(browser, server, allowed)
            assert SECRET in found["websocket"]
            assert found["read"] == "failed", "a listed origin reads with a token, never with the user's cookie"
