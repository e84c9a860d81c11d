"""Owns a Chromium that is spoken to in its own protocol alone, for what Playwright makes impossible: a tab that is frozen.

Playwright pretends that every page has the focus, and such a page is never frozen nor hidden. Tests open one tab here, watch
what it does on the network, freeze it and resume it. It never downloads a browser: that is provision's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from tests.support.browser import BROWSER_ARGS

__all__ = ["RawTab", "open_tab"]

START_SECONDS = 60.0
PATIENCE_SECONDS = 100.0
"""How long a wait may take on a busy machine; none is ever waited for in full when all is well."""
LOOK_SECONDS = 0.02
HEADLESS = ("--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--window-size=1200,800", *BROWSER_ARGS)


class _Value(msgspec.Struct):
    value: object = None


class _Result(msgspec.Struct, rename="camel"):
    result: _Value = msgspec.field(default_factory=_Value)
    session_id: str = ""
    target_id: str = ""
    exception_details: object = None


class _Failure(msgspec.Struct):
    message: str


class _Line(msgspec.Struct, rename="camel"):
    """An answer, which has an `id`, or an event, which has a `method`."""

    id: int = 0
    result: _Result | None = None
    error: _Failure | None = None
    method: str = ""


class RawTab:
    """One tab. `events` counts what the browser has told of it so far, by the protocol's own names."""

    def __init__(self, socket: ClientConnection) -> None:
        self.events: Counter[str] = Counter()
        self._socket = socket
        self._session = ""
        self._last = 0
        self._answers: dict[int, asyncio.Future[_Result]] = {}

    async def attach(self) -> None:
        """Open an empty tab and listen to it."""
        target = (await self.call("Target.createTarget", url="about:blank")).target_id
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached.session_id
        for domain in ("Page", "Runtime", "Network"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: str | bool) -> _Result:
        """One command of the protocol; a refusal of it is an error of the test."""
        self._last += 1
        number = self._last
        answer: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        line: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            line["sessionId"] = self._session
        await self._socket.send(msgspec.json.encode(line), text=True)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await answer

    async def open(self, url: str, *, script: str) -> None:
        """Go to an address; `script` runs in the page before anything of its own does."""
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> object:
        """The value of an expression in the page; a frozen page answers too."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert answer.exception_details is None, (expression, answer.exception_details)
        return answer.result.value

    async def until(self, expression: str, wanted: Callable[[object], bool] = bool) -> object:
        """Look until the value of an expression is as wanted; gives it."""
        value: object = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not wanted(value := await self.evaluate(expression)):
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{expression} stays {value!r}") from None
        return value

    async def freeze(self) -> None:
        """What the browser does to a tab that nobody has looked at for long: hidden, and nothing of it runs."""
        await self.call("Page.setWebLifecycleState", state="frozen")

    async def resume(self) -> None:
        """It runs again, but nobody looks at it yet."""
        await self.call("Page.setWebLifecycleState", state="active")

    async def look(self, *, away: bool = False) -> None:
        """Somebody looks at it, or away from it again."""
        await self.call("Emulation.setFocusEmulationEnabled", enabled=not away)

    async def listen(self) -> None:
        """Take answers and events until the browser has gone."""
        async for data in self._socket:
            line = msgspec.json.decode(data, type=_Line)
            if line.method:
                self.events[line.method] += 1
            answer = self._answers.pop(line.id, None)
            if answer is None or answer.done():
                continue
            if line.error is not None:
                answer.set_exception(AssertionError(line.error.message))
            else:
                answer.set_result(line.result or _Result())


@asynccontextmanager
async def open_tab(executable: Path, profile: Path) -> AsyncIterator[RawTab]:
    """A browser of its own with one tab; its processes are ended on the way out."""
    process = await asyncio.create_subprocess_exec(
        *(str(executable), *HEADLESS, f"--user-data-dir={profile}", "about:blank"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with connect(await _address(process, profile), max_size=None, ping_interval=None) as socket:
            tab = RawTab(socket)
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(tab.listen())
                await tab.attach()
                try:
                    yield tab
                finally:
                    listening.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _address(process: asyncio.subprocess.Process, profile: Path) -> str:
    """Where the browser says that it can be spoken to."""
    told = profile / "DevToolsActivePort"
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, f"the browser ended with {process.returncode}"
            lines = told.read_text(encoding="ascii").splitlines() if told.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await asyncio.sleep(LOOK_SECONDS)
