"""Runs in this process: an async iterator becomes a durable stream, whoever watches.

The embedding object starts them here, under one task group; an operation of the log that asks for a run's end reaches it
here too. It knows no transport; starting is not attaching.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from unbroken.errors import LifespanError, OverloadedError
from unbroken.identity import Principal
from unbroken.log import Change
from unbroken.messages import StreamId, StreamInfo
from unbroken.requests import NewStream
from unbroken.runs.items import Item
from unbroken.runs.one import Run, leave
from unbroken.states import StreamStateManager
from unbroken.store.base import Producer
from unbroken.streams import Streams

__all__ = ["Item", "LocalRuns"]

logger = logging.getLogger(__name__)


class LocalRuns:
    """All runs of this process. `running` must be entered before `start`."""

    def __init__(self, streams: Streams, states: StreamStateManager) -> None:
        self._streams = streams
        self._states = states
        self._runs: dict[StreamId, Run] = {}
        self._begun = 0
        self._tasks: asyncio.TaskGroup | None = None
        streams.log.on_commit(self._committed)

    def __len__(self) -> int:
        return len(self._runs)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs may be started inside the block; those left at its end are stopped and marked as interrupted."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                for run in list(self._runs.values()):
                    run.stop()

    async def start(
        self, principal: Principal, name: str, source: AsyncIterable[Item], new: NewStream | None = None
    ) -> StreamInfo:
        """Run `source` into the stream `name`, or attach to the stream that already has the name.

        Returns when the stream exists durably; the run goes on by itself, also when the caller is cancelled. When the name
        is taken, `source` is closed without having begun. Raises `LifespanError` outside `running`, `OverloadedError`
        when there are `runs_max` runs, and what `aiter(source)` and `Streams.create` raise.
        """
        if not isinstance(source, AsyncIterable):
            raise TypeError(
                f"a run is an async iterable, such as a called async generator, not {type(source).__name__}"
            )
        if self._tasks is None:
            raise LifespanError
        limits = self._streams.limits
        if self._begun >= limits.runs_max:
            raise OverloadedError("too many runs in this process", limit="runs_max", retry_after_seconds=5)
        iterator = aiter(source)  # the application's code: what it raises is the caller's
        self._begun += 1
        begun: asyncio.Future[StreamInfo] = asyncio.get_running_loop().create_future()
        new = new or NewStream(kind="text")
        self._tasks.create_task(self._run(begun, principal, name, iterator, new))
        return await asyncio.shield(begun)

    async def _run(
        self,
        begun: asyncio.Future[StreamInfo],
        principal: Principal,
        name: str,
        iterator: AsyncIterator[Item],
        new: NewStream,
    ) -> None:
        """One run from the creation of its stream to its end; what goes wrong ends this run, not the others."""
        limits = self._streams.limits
        producer = f"run-{secrets.token_hex(6)}"
        try:
            try:
                created = await self._streams.create(principal, name, replace(new, lease=Producer(producer, 1, 0)))
            except Exception as error:  # noqa: BLE001 - the caller's, who waits for it
                await leave(iterator, limits.run_grace_seconds)
                begun.set_exception(error)
                begun.exception()  # a caller that has gone must not turn this into a warning
                return
            if not created.created:
                begun.set_result(created.stream)
                await leave(iterator, limits.run_grace_seconds)
                return
            run = Run(self._streams, self._states, created.stream, producer)
            self._runs[run.stream.id] = run
            begun.set_result(created.stream)
            await self._execute(run, iterator)
        finally:
            self._begun -= 1
            if not begun.done():
                begun.cancel()

    async def _execute(self, run: Run, iterator: AsyncIterator[Item]) -> None:
        if self._tasks is None:
            run.stop()
        try:
            await run.execute(iterator)
        except Exception:  # the top of a task: a defect in one run must not end the others
            logger.exception("run %s broke off; it ends as interrupted when its lease runs out", run.stream.name)
        finally:
            del self._runs[run.stream.id]

    def _committed(self, changes: Sequence[Change]) -> None:
        """A cancel that somebody asked for reaches its run: at once, or from another process when the lease is renewed."""
        for change in changes:
            run = self._runs.get(change.stream)
            if run is not None and change.info is not None:
                run.observe(change.info)
