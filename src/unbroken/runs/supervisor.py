"""Executes runs: takes each waiting one, keeps its lease, continues what a crash broke off, and sees that every one ends.

The store says what there is to do, and this loop compares it with what is being done here: so it does not matter which
process a run was started in, where it is cancelled, or who died. The composition root starts it; it knows no transport.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from itertools import count
from typing import Any, Final

import msgspec

from unbroken.errors import (
    DrainingError,
    EndedError,
    FencedError,
    NotFoundError,
    TransitionError,
    UnbrokenError,
)
from unbroken.hub import Hub
from unbroken.log import Change
from unbroken.messages import NewMessage, Seq, StreamId, StreamInfo, StreamState, decode_messages
from unbroken.runs.catalog import Catalog, Runnable
from unbroken.runs.context import RunContext, RunEnded
from unbroken.runs.crashes import Probation, refuse_after_crashes
from unbroken.runs.files import FileReference, NewFile, keep
from unbroken.runs.history import History, read_history
from unbroken.runs.items import Item
from unbroken.runs.one import Plan, Run, why
from unbroken.runs.sight import Sight
from unbroken.runs.spec import RunSpec
from unbroken.states import StreamStateManager
from unbroken.streams import Streams

__all__ = ["RunSupervisor"]

logger = logging.getLogger(__name__)

RETRY_SECONDS_MAX: Final = 300.0
ACCEPTED: Final = Seq(1)
Owner = tuple[str, str]


class RunSupervisor:
    """All supervised runs of this process. Belongs to one event loop; `running` must be entered."""

    def __init__(self, streams: Streams, states: StreamStateManager, hub: Hub, catalog: Catalog) -> None:
        self._streams = streams
        self._states = states
        self._hub = hub
        self._catalog = catalog
        self._limits = streams.limits
        self._runs: dict[StreamId, _Supervised] = {}
        self._owners: Counter[Owner] = Counter()
        self._probation = Probation(self._limits, streams.clock.random)
        self._sight = Sight(self._limits.lease_seconds / 3)  # within which every executor renews its lease
        self._news = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._metrics = streams.log.metrics
        self._metrics.runs.set_function(lambda: len(self._runs))
        streams.log.on_commit(self._committed)

    def __len__(self) -> int:
        return len(self._runs)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs are executed inside the block. Those left at its end are given back where they can go on, else interrupted."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            loop = tasks.create_task(self._run(), name="run supervisor")
            try:
                yield
            finally:
                self._tasks = None
                loop.cancel()
                for run in list(self._runs.values()):
                    run.stop()
        await self._catalog.close()

    def _committed(self, changes: Sequence[Change]) -> None:
        """A run was started, cancelled, paused or resumed through this process: look at once."""
        for change in changes:
            if change.info is not None and change.info.run is not None:
                self._news.set()
                run = self._runs.get(change.stream)
                if run is not None:
                    run.observe(change.info)

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                await self._reconcile()
            except DrainingError:
                return
            except UnbrokenError as error:
                self._sight.forget()
                logger.warning("cannot look for runs: %s %s", error.code, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.run_poll_seconds):
                    await self._news.wait()

    async def _reconcile(self) -> None:
        """Compare what is stored with what runs here."""
        before = set(self._runs)
        now = self._streams.clock.now_ms()
        waiting: list[StreamInfo] = []
        active: set[StreamId] = set()
        if self._streams.log.degraded is not None:
            self._sight.forget()
        self._sight.look(asyncio.get_running_loop().time())
        async for info in self._active():
            active.add(info.id)
            run = self._runs.get(info.id)
            if run is not None:
                run.observe(info)
            elif self._claimable(info, now):
                waiting.append(info)
        for stream in before - active:
            if (run := self._runs.get(stream)) is not None:
                run.lost()
        self._begin(waiting)
        self._metrics.waiting_runs.set(sum(info.id not in self._runs for info in waiting))

    async def _active(self) -> AsyncIterator[StreamInfo]:
        after, limit = StreamId(0), self._limits.page_items_max
        while True:
            found = await self._streams.store.active_runs(after, limit=limit)
            for info in found:
                yield info
            if len(found) < limit:
                return
            after = found[-1].id

    def _claimable(self, info: StreamInfo, now_ms: int) -> bool:
        """Whether nobody executes it: it waits, or whoever did has lost its lease.

        That a lease has run out is believed only when it was seen unchanged for as long as it was given for: its executor may
        have had no chance to renew it, because the clock was set, the machine slept or the store was away.
        """
        seen = self._sight.seconds(info)
        if info.state is StreamState.RUNNING:
            given_seconds = self._limits.lease_seconds if info.lease_ms is None else info.lease_ms / 1000
            return (info.lease_until_ms or 0) < now_ms and seen >= given_seconds
        if info.state is not StreamState.OPEN:
            return False
        # after a pause its worker takes the lease again; it has a moment for that
        return not _begun(info) or seen >= self._limits.run_takeover_seconds

    def _begin(self, waiting: Sequence[StreamInfo]) -> None:
        """Take as many as there is room for, in turn over their owners, the oldest of each first."""
        if self._tasks is None:
            return
        queues: dict[Owner, deque[StreamInfo]] = {}
        for info in waiting:
            queues.setdefault((info.tenant, info.owner), deque()).append(info)
        room = self._limits.supervised_runs_max - len(self._runs)
        while queues and room > 0:
            for owner in list(queues):
                queue = queues[owner]
                if not queue or self._owners[owner] >= self._limits.supervised_runs_of_owner_max:
                    del queues[owner]
                elif room > 0:
                    room -= 1
                    self._take(owner, queue.popleft())

    def _take(self, owner: Owner, info: StreamInfo) -> None:
        assert self._tasks is not None
        run = _Supervised(self._streams, self._states, self._hub, self._catalog, self._probation, info)
        self._runs[info.id] = run
        self._owners[owner] += 1
        self._tasks.create_task(self._execute(owner, run))

    async def _execute(self, owner: Owner, run: _Supervised) -> None:
        try:
            await run.execute()
        except Exception:  # the top of a task: a defect in one run must not end the others
            logger.exception("run %s broke off; it is taken up again when its lease runs out", run.info.name)
        finally:
            del self._runs[run.info.id]
            self._owners[owner] -= 1
            self._news.set()


class _Supervised:
    """One run in this process, from taking its lease to its end; the `Outlet` of its executions."""

    def __init__(
        self,
        streams: Streams,
        states: StreamStateManager,
        hub: Hub,
        catalog: Catalog,
        probation: Probation,
        info: StreamInfo,
    ) -> None:
        self._streams = streams
        self._states = states
        self._hub = hub
        self._catalog = catalog
        self._probation = probation
        self._limits = streams.limits
        self._metrics = streams.log.metrics
        self.info = info
        self._run: Run | None = None
        self._context: RunContext | None = None
        self._runnable: Runnable | None = None
        self._head: Seq = info.head
        self._stopped = False

    # --- what the supervisor tells it ---------------------------------------------------------------------------------

    def observe(self, info: StreamInfo) -> None:
        """The stream's state may have changed."""
        if self._run is not None:
            self._run.observe(info)

    def lost(self) -> None:
        """The stream has ended, or is gone, without us."""
        if self._run is not None:
            self._run.lost()

    def stop(self) -> None:
        """This process stops: the run is given back if it can go on elsewhere, else it is interrupted."""
        self._stopped = True
        if self._run is not None:
            self._run.stop(release=self._can_go_on())

    def _can_go_on(self) -> bool:
        if self._runnable is None or self._context is None:
            return True  # nothing was begun
        return self._runnable.recover(self._context.history).resume

    def _remember(self, message: NewMessage) -> None:
        if self._context is not None:
            self._context.history.take(message)
            if self._context.history.got_on:
                self._probation.leave(self)

    def _interrupted(self) -> None:
        if self._context is not None:
            self._context.cancelled = True
            self._context.ending = None if self._run is None else self._run.ending

    # --- execution ----------------------------------------------------------------------------------------------------

    async def execute(self) -> None:
        """Take the lease, and run to the end; returns at once when another process was faster."""
        info = self.info
        producer, epoch = f"run-{secrets.token_hex(6)}", info.lease_epoch + 1
        try:
            leased = await self._states.lease(info, producer, epoch, None)
        except (FencedError, EndedError, NotFoundError, TransitionError):
            return
        run = self._run = Run(self._streams, self._states, leased, producer, Plan(epoch=epoch, told=True))
        run.on_interrupt = self._interrupted
        run.on_put = self._remember
        run.observe(leased)
        if not _begun(info):
            waited_ms = self._streams.clock.now_ms() - info.created_ms
            self._metrics.run_queue_seconds.observe(max(waited_ms, 0) / 1000)
        if self._stopped:
            self.stop()
        try:
            await run.execute(self._source(run, leased))
        finally:
            self._probation.leave(self)

    async def _source(self, run: Run, info: StreamInfo) -> AsyncGenerator[Item, None]:
        """What the run yields, over as many executions as it takes."""
        assert info.run is not None
        spec = RunSpec.parse(info.run)
        history, self._head = await read_history(self._streams, info)
        try:
            runnable = self._runnable = await self._catalog.find(spec)
        except UnbrokenError as error:
            raise RunEnded(StreamState.FAILED, {"error": error.message, "code": error.code}) from error
        crashed = history.started > 0 and self.info.state is StreamState.RUNNING  # else it was released, or never begun
        if history.started:
            self._recover(runnable, history)
            crashes = history.crashes_now if crashed else history.crashes
            refuse_after_crashes(crashes, self._limits)
            await self._probation.enter(self, crashes)
        run.limit(
            runnable.idle_seconds if spec.idle_seconds is None else spec.idle_seconds,
            runnable.total_seconds if spec.total_seconds is None else spec.total_seconds,
        )
        for retry in count():
            run.skip = history.yielded
            context = self._context = RunContext(info, spec, history, self, self._limits)
            self._metrics.run_attempts.labels(spec.type).inc()
            await self._say_started(context, after_crash=crashed and retry == 0)
            try:
                async with aclosing(_as_generator(runnable.execute(context))) as items:
                    async for item in items:
                        yield item
            except RunEnded as ended:
                if not ended.retryable or retry >= runnable.retries:
                    raise
                failure, after = ended.body, ended.after_seconds
            except Exception as error:
                if retry >= runnable.retries:
                    raise
                logger.warning("run %s failed, and is tried again", info.name, exc_info=True)
                failure, after = why(error), 0.0
            else:
                return
            await self._pause(context, max(runnable.retry_seconds * 2**retry, after), failure)
            history, self._head = await read_history(self._streams, info)

    async def _say_started(self, context: RunContext, *, after_crash: bool) -> None:
        """Tell, durably, before anything is done: what dies at once has begun all the same."""
        body: dict[str, object] = {"attempt": context.attempt, "resumed": context.history.checkpoint is not None}
        await context.put("started", body | ({"after_crash": True} if after_crash else {}))
        with self.waiting():
            await context.durable()

    @staticmethod
    def _recover(runnable: Runnable, history: History) -> None:
        """Go on after a crash, or say that this cannot be."""
        recovery = runnable.recover(history)
        if not recovery.resume:
            body = {"cause": recovery.cause, "may_have_run": recovery.may_have_run}
            raise RunEnded(StreamState.INTERRUPTED, body)

    async def _pause(self, context: RunContext, seconds: float, failure: dict[str, object]) -> None:
        """Say why it is tried again, and wait."""
        assert self._run is not None
        wait = min(seconds, RETRY_SECONDS_MAX)
        self._metrics.run_retries.labels(context.spec.type).inc()
        await context.put("retry", {"attempt": context.attempt, "after_seconds": wait, **failure})
        await context.durable()
        with self.waiting():
            await asyncio.sleep(wait)

    # --- Outlet -------------------------------------------------------------------------------------------------------

    async def put(self, message: NewMessage) -> None:
        """As `Run.put`."""
        assert self._run is not None
        await self._run.put(message)

    def note_progress(self, body: Mapping[str, object]) -> None:
        """As `Run.note_progress`."""
        assert self._run is not None
        self._run.note_progress(body)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """As `Run.spawn`."""
        assert self._run is not None
        return self._run.spawn(work)

    async def durable(self) -> None:
        """As `Run.durable`."""
        assert self._run is not None
        await self._run.durable()

    async def keep(self, file: NewFile) -> FileReference:
        """As `files.keep`, for as long as it takes."""
        assert self._run is not None
        with self.waiting():
            return await keep(self._streams, self._states, self.info, file, self._run.patiently)

    async def answer(self, key: str) -> msgspec.Raw:
        """The answer to the question `key`, from the stream itself: so it does not matter where it was given."""
        with self.waiting(), await self._hub.follow(self.info, self._head) as follower:
            while True:
                for batch in (await follower.next()).batches:
                    history = History()
                    for message in decode_messages(batch.body):
                        history.take(message)
                    if key in history.answered:
                        return history.answered[key]

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """As `Outlet.waiting`."""
        assert self._run is not None
        self._run.excused += 1
        try:
            yield
        finally:
            self._run.excused -= 1


def _begun(info: StreamInfo) -> bool:
    """Whether anything was executed for it: `accepted` is its first message, and `started` is durable before the rest.

    The epoch of its lease does not say so: it orders the leases of one producer, and another begins where it likes.
    """
    return info.head > ACCEPTED


async def _as_generator(items: AsyncIterator[Item]) -> AsyncGenerator[Item, None]:
    """`items`, closed when this is."""
    try:
        async for item in items:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
