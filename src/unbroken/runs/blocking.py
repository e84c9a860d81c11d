"""Functions that block, in a thread of their own: what they yield and ask reaches the run in order, one thing at a time.

`runs.task` calls `in_thread`. A thread cannot be stopped from outside: a cancelled run ends at once, and the thread is left
to its next item, or to notice `run.cancelled`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Literal, cast

from unbroken.messages import StreamState
from unbroken.runs.context import RunContext, RunEnded
from unbroken.runs.files import FileReference
from unbroken.runs.items import Item

__all__ = ["BlockingContext", "in_thread"]

ITEMS_MAX: Final = 100
"""Items between a thread and its run; a thread that is faster waits."""


class _Left(BaseException):
    """The run has ended: raised in its thread wherever that talks to the run."""


class _Done:
    """The end of a thread's work: what it returned or raised."""

    def __init__(self, value: object = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error


class _Call:
    """Something that the thread asks of the run, and waits for."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._work = work
        self.future: Future[object] = Future()

    async def carry_out(self) -> None:
        try:
            result = await self._work()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the thread's
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _Handover:
    """A bounded queue from one thread to one event loop. After `leave` the thread gets `_Left` at its next step."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Item | _Done | _Call] = asyncio.Queue()
        self._room = threading.Semaphore(ITEMS_MAX)
        self._left = threading.Event()
        self._calls: set[_Call] = set()

    def put(self, item: Item | _Done | _Call) -> None:
        """From the thread; waits while the run does not keep up."""
        self._room.acquire()
        if self._left.is_set():
            raise _Left
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody takes it any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def call(self, work: Callable[[], Coroutine[Any, Any, object]]) -> object:
        """From the thread: let the run do `work` when everything before it is done; its result."""
        call = _Call(work)
        self._calls.add(call)
        try:
            self.put(call)
            return call.future.result()
        finally:
            self._calls.discard(call)

    def soon(self, work: Callable[[], None]) -> None:
        """From the thread: do `work` in the event loop, without waiting for it."""
        if self._left.is_set():
            raise _Left
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)

    async def take(self) -> Item | _Done | _Call:
        item = await self._queue.get()
        self._room.release()
        return item

    def leave(self) -> None:
        """The run has ended, or goes on without the thread."""
        self._left.set()
        self._room.release(ITEMS_MAX + 1)
        for call in list(self._calls):
            if not call.future.done():
                call.future.set_exception(_Left())


class BlockingContext:
    """The context of a function that blocks: what `RunContext` offers, without `await`."""

    def __init__(self, context: RunContext, handover: _Handover) -> None:
        self._context = context
        self._handover = handover
        self.attempt = context.attempt
        self.checkpoint_state = context.checkpoint_state

    @property
    def cancelled(self) -> bool:
        """Whether the end was asked for: then return soon."""
        return self._context.cancelled

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """As `RunContext.progress`."""
        self._handover.soon(lambda: self._context.note_progress(done, total, message))

    def log(self, text: str, level: Literal["debug", "info", "warning", "error"] = "info") -> None:
        """As `RunContext.log`."""
        self._handover.call(lambda: self._context.log(text, level))

    def checkpoint(self, state: object) -> None:
        """As `RunContext.checkpoint`."""
        self._handover.call(lambda: self._context.checkpoint(state))

    def file(self, content: bytes | Path, name: str = "", media_type: str = "") -> FileReference:
        """As `RunContext.file`."""
        kept = self._handover.call(lambda: self._context.file(content, name, media_type))
        assert isinstance(kept, FileReference)
        return kept

    def ask(self, request: Mapping[str, object], *, id: str | None = None) -> object:
        """As `RunContext.ask`."""
        return self._handover.call(lambda: self._context.ask(request, id=id))


async def in_thread(context: RunContext, call: Callable[[BlockingContext], Any]) -> AsyncIterator[Item]:
    """What `call` yields in a daemon thread of its own; what it returns is the result."""
    handover = _Handover()
    blocking = BlockingContext(context, handover)
    thread = threading.Thread(target=_work, args=(handover, lambda: call(blocking)), daemon=True)
    thread.start()
    try:
        while True:
            item = await handover.take()
            if isinstance(item, _Call):
                await item.carry_out()
            elif not isinstance(item, _Done):
                yield item
            elif item.error is not None:
                raise item.error
            elif item.value is not None:
                raise RunEnded(StreamState.COMPLETED, {"value": item.value}, reason={})
            else:
                return
    finally:
        handover.leave()


def _work(handover: _Handover, call: Callable[[], Any]) -> None:
    """The thread: hands over every item, and at the end the result or the failure."""
    try:
        called = call()
        if inspect.isgenerator(called):
            with contextlib.closing(called):
                for item in cast("Iterator[Item]", called):
                    handover.put(item)
            called = None
        handover.put(_Done(called))
    except _Left:
        return
    except BaseException as error:  # noqa: BLE001 - the top of a thread: handed to the run
        with contextlib.suppress(_Left):
            handover.put(_Done(error=error))
