"""The signal that ends an application, noticed before the server around it acts on it.

An embedded Unbroken uses it: a server such as uvicorn waits for long responses before it ends the application's lifespan, so
the lifespan's end comes too late to end them. It takes no signal away from whoever handled it before.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Final

__all__ = ["on_stop_signal"]

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)

_Handler = Callable[[int, FrameType | None], object]


@asynccontextmanager
async def on_stop_signal(act: Callable[[], Coroutine[object, object, None]]) -> AsyncIterator[None]:
    """Run `act` once as soon as SIGTERM or SIGINT arrives inside the block; its end is waited for at the block's.

    The handlers that were there are called too, and are back afterwards. A signal whose handler is not Python code of the
    application or its server (the default action, ignored) is left alone, and so are all of them outside the main thread.
    """
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    def notice() -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing is left to stop
            loop.call_soon_threadsafe(arrived.set)

    async def watch() -> None:
        await arrived.wait()
        await act()

    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(watch(), name="stop signal")
        with _chained(notice):
            try:
                yield
            finally:
                if not arrived.is_set():
                    watcher.cancel()


@contextmanager
def _chained(notice: Callable[[], None]) -> Iterator[None]:
    """Inside the block `notice` is called before the handler of each of the signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    links = [_Link(number, before, notice) for number in STOPPING if callable(before := _present(number))]
    try:
        yield
    finally:
        for link in reversed(links):
            link.leave()


def _present(number: signal.Signals) -> object:
    """The handler of the signal; None where it only interrupts what runs, as at a prompt, and does not stop a server."""
    handler = signal.getsignal(number)
    return None if handler is signal.default_int_handler else handler


class _Link:
    """Our handler of one signal, in front of the one that was there."""

    def __init__(self, number: signal.Signals, before: _Handler, notice: Callable[[], None]) -> None:
        self._number = number
        self._before = before
        self._notice: Callable[[], None] | None = notice
        self._handler = self._handle  # one object: each look-up of a method makes another
        signal.signal(number, self._handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._notice is not None:
            self._notice()
        self._before(number, frame)

    def leave(self) -> None:
        """Put the earlier handler back; if somebody has put theirs in front of ours since, only hand on from now."""
        self._notice = None
        if signal.getsignal(self._number) is self._handler:
            signal.signal(self._number, self._before)
