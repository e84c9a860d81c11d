"""A tab that the browser freezes in mid-stream, and resumes: it catches up, with one connection and no flood of timers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.e2e.screen import NO_WEBSOCKETS, TEXT
from tests.e2e.writer import Writer
from tests.support.metrics import until_metric
from tests.support.raw_browser import RawTab, open_tab
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

SOCKETS = 'unbroken_connections{face="websocket"}'
TIMES = 2
"""How often the tab is frozen."""
HASTE = 10
"""The page's clocks tick so many times as often as shipped, so that a short freeze is many of their ticks."""
TICKS = 20
"""How many ticks of its fastest clock the page misses in each freeze."""
TICK_MILLISECONDS = 1000 / HASTE
PATIENT = 20_000
"""What the page would do after more milliseconds than this it never does: it must not need its patience with silence."""
CONNECTED = "Network.webSocketCreated"
ASKED = "Network.requestWillBeSent"

WATCH = f"""
window.__live = new Set();
window.__ticks = 0;
window.__heard = [];
for (const name of ["freeze", "resume"]) document.addEventListener(name, () => window.__heard.push(name));
(() => {{
  const {{ setTimeout: once, setInterval: again, clearTimeout: stop }} = window;
  window.setTimeout = (call, wait, ...more) => {{
    const id = once(() => {{ window.__live.delete(id); call(...more); }}, wait > {PATIENT} ? 1e9 : wait);
    window.__live.add(id);
    return id;
  }};
  window.setInterval = (call, wait, ...more) => {{
    const id = again(() => {{ window.__ticks += wait === 1000 ? 1 : 0; call(...more); }}, wait / {HASTE});
    window.__live.add(id);
    return id;
  }};
  window.clearTimeout = window.clearInterval = (id) => {{ window.__live.delete(id); stop(id); }};
}})();
"""


def count(value: object) -> int:
    assert isinstance(value, int | float), value
    return int(value)


async def words(tab: RawTab) -> list[int]:
    return [int(number) for number in re.findall(r"w(\d+) ", str(await tab.evaluate(TEXT)))]


async def until_words(tab: RawTab, wanted: int) -> None:
    await tab.until(f"({TEXT}.match(/w[0-9]+ /g) ?? []).length", lambda shown: count(shown) >= wanted)


async def rules(tab: RawTab) -> list[str]:
    """What the settled resume rules say."""
    said = await tab.evaluate(
        "[...document.querySelectorAll('[data-testid=resume-rule]')].map((rule) => rule.textContent).join('\\n')"
    )
    return [rule for rule in str(said).split("\n") if "lost" in rule]


async def freeze(tab: RawTab, server: ServerProcess, writer: Writer, *, socket: bool) -> float:
    """Frozen while the stream goes on, for many ticks of the page's clock; gives the seconds that it was."""
    await tab.freeze()
    begun = asyncio.get_running_loop().time()
    before, stood = tab.events.copy(), await tab.evaluate("[window.__ticks, performance.now()].join()")
    ticks, at = str(stood).split(",")
    shown = len(await words(tab))
    await writer.words(60)
    await tab.until(f"performance.now() > {float(at) + TICKS * TICK_MILLISECONDS}")
    if socket:
        await until_metric(server.url, SOCKETS, lambda sockets: sockets == 0)  # the server's side: silence
    assert count(await tab.evaluate("window.__ticks")) == int(ticks), "inconclusive: the tab is not frozen"
    assert len(await words(tab)) == shown
    assert (tab.events - before)[CONNECTED] + (tab.events - before)[ASKED] == 0
    return asyncio.get_running_loop().time() - begun


async def resume(tab: RawTab, writer: Writer, *, socket: bool) -> None:
    """Resumed while the stream goes on: one connection more at most, and no more ticks or requests than time has passed."""
    before = tab.events.copy()
    ticks, at = count(await tab.evaluate("window.__ticks")), float(str(await tab.evaluate("performance.now()")))
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.words(40))
        await tab.resume()
        await tab.look()
    await until_words(tab, writer.acked)
    await tab.until("document.querySelector('[data-testid=badge]').dataset.state === 'live'")
    told = tab.events - before
    passed = float(str(await tab.evaluate("performance.now()"))) - at
    assert told[CONNECTED] == (1 if socket else 0), told
    assert count(await tab.evaluate("window.__ticks")) - ticks <= passed / TICK_MILLISECONDS + 2
    assert told[ASKED] <= passed / TICK_MILLISECONDS + 6, told
    await tab.look(away=True)


@pytest.mark.scenario("TC-EDGE-012", "ENV-006")
@pytest.mark.parametrize("carrier", ["websocket", "sse"])
async def test_a_tab_that_is_frozen_in_mid_stream_catches_up(tmp_path: Path, chromium_path: Path, carrier: str) -> None:
    socket = carrier == "websocket"
    async with (
        ServerProcess(tmp_path, arguments=("--heartbeat", "0.4")) as server,
        Writer(server.url, "tab/frozen") as writer,
        open_tab(chromium_path, tmp_path / "profile") as tab,
    ):
        await writer.create(kind="run")
        await writer.words(20)
        await tab.open(f"{server.url}/#/stream/{writer.stream}", script=WATCH if socket else WATCH + NO_WEBSOCKETS)
        await until_words(tab, 20)
        live, before = count(await tab.evaluate("window.__live.size")), len(await rules(tab))
        for time in range(1, TIMES + 1):
            away = await freeze(tab, server, writer, socket=socket)
            await resume(tab, writer, socket=socket)
            assert await words(tab) == list(range(writer.acked)), "nothing lost, nothing twice, in order"
            assert count(await tab.evaluate("window.__heard.length")) == 2 * time
            assert count(await tab.evaluate("window.__live.size")) <= live + 1, "timers pile up"
            said = await rules(tab)
            assert len(said) == before + time, said
            assert "· 0 lost" in said[-1], said
            found = re.search(r"away ([\d.]+) s", said[-1])
            assert found, said
            assert float(found[1]) >= away - 0.2, "the time away begins with the freeze"
        await writer.close("completed")
        await tab.look()
        await tab.until("document.querySelector('[data-testid=badge]').dataset.state === 'ended'")
        assert await words(tab) == list(range(20 + TIMES * 100))
