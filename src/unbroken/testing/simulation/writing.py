"""Those who write in a simulated world: producers with a lease and their successors, writers without, and who starts a task.

Each appends through the real client, notes in the history what it asked for and what it was told, and ends the stream as its
plan says. They give up only what the server refused for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

from unbroken.client import Client, Producer
from unbroken.errors import ConflictError, EndedError, TrimmedError, UnbrokenError
from unbroken.messages import NewMessage
from unbroken.runs.catalog import Catalog
from unbroken.runs.context import RunContext
from unbroken.runs.spec import RunOptions
from unbroken.runs.task import TaskOptions, Tasks, task
from unbroken.testing.simulation.chance import chance_of
from unbroken.testing.simulation.plan import StreamKind, StreamPlan
from unbroken.testing.simulation.server import Life
from unbroken.testing.simulation.world import World

__all__ = ["catalog_of", "write"]

CHECKPOINT_EVERY = 5
PAUSE_SECONDS = 0.02
IMPOSSIBLE_HEAD = 1_000_000


async def write(world: World, plan: StreamPlan) -> None:
    """Write the whole stream and end it."""
    try:
        match plan.kind:
            case StreamKind.LEASED:
                await _Succession(world, plan).run()
            case StreamKind.SHARED:
                await _share(world, plan)
            case StreamKind.RUN:
                async with world.client(f"{plan.name}-starter") as client:
                    arguments: dict[str, str | float] = {
                        "stream": plan.name,
                        "messages": plan.messages,
                        "pause": max(plan.pause_seconds, PAUSE_SECONDS) if world.plan.fleet else PAUSE_SECONDS,
                    }
                    await _patiently(client, plan.name, arguments)
    finally:
        world.written[plan.name].set()


async def _patiently(client: Client, name: str, arguments: dict[str, str | float]) -> None:
    """Start the task; the key makes that safe to repeat."""
    while True:
        try:
            await client.runs.task("count", arguments, RunOptions(name=name))
        except UnbrokenError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(1)
        else:
            return


def payload(chance: Random, name: str, size: int) -> str:
    """A text that begins with its own name."""
    return name + " " + "x" * chance.randint(0, size)


class _Succession:
    """The producers of a leased stream, one after the other: each dies but the last, and the next goes on for it."""

    def __init__(self, world: World, plan: StreamPlan) -> None:
        self._world = world
        self._plan = plan
        self._history = world.histories[plan.name]
        self._chance = chance_of(world.plan.seed, f"producer {plan.name}")
        self._next = 0

    async def run(self) -> None:
        plan = self._plan
        for epoch in range(plan.incarnations):
            last = epoch == plan.incarnations - 1
            upto = plan.messages if last else plan.messages * (epoch + 1) // plan.incarnations
            path = self._world.network.path(name := f"{plan.name}-writer-{epoch}")
            try:
                async with self._world.client(name) as client:
                    producer = client.producer(plan.name, id="p", epoch=epoch, lease_seconds=plan.lease_seconds)
                    try:
                        await self._live(client, producer, upto, last=last)
                        if last and plan.ending != "interrupted":
                            await self._end(client, producer)
                            return
                    finally:
                        path.refusing = True  # what dies says nothing more
                        path.cut()
                        await producer.stop()
            except EndedError:
                return  # it was away for too long, or somebody has cancelled it
            await asyncio.sleep(self._chance.uniform(0, plan.lease_seconds / 3))

    async def _live(self, client: Client, producer: Producer, upto: int, *, last: bool) -> None:
        """One incarnation, up to its message `upto`."""
        plan = self._plan
        await producer.__aenter__()
        if producer.epoch:
            self._next = await self._found(client)
        cancel_at = upto // 2 if last and plan.ending == "cancelled" else -1
        while self._next < upto:
            count = min(plan.burst, upto - self._next)
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._next, self._next + count):
                    tasks.create_task(self._append(producer, number))
            self._next += count
            if 0 <= cancel_at <= self._next:
                cancel_at = -1
                await client.cancel(plan.name)
            if producer.cancel_requested.is_set():
                return
            await asyncio.sleep(plan.pause_seconds * self._chance.random())

    async def _append(self, producer: Producer, number: int) -> None:
        name = f"{self._plan.name}/{number}"
        text = payload(chance_of(self._world.plan.seed, name), name, self._plan.payload_bytes)
        self._history.invoke("p", name, text)
        try:
            acked = await producer.append(text)
        except UnbrokenError:
            self._history.unknown(name)
            if producer.error is not None and not isinstance(producer.error, EndedError):
                self._world.violated(f"{name}: {producer.error.code} {producer.error}")
            return
        self._history.ack(name, acked.first)

    async def _found(self, client: Client) -> int:
        """What the predecessors have left in the stream: the number behind their last message."""
        last = -1
        after: str = "start"
        while True:
            try:
                read = await client.read(self._plan.name, after)
            except TrimmedError:
                after = "start"  # the janitor was faster; the last message is never trimmed
                continue
            for received in read.received():
                last = max(last, int((received.text or "").split()[0].rpartition("/")[2]))
            if read.up_to_date:
                return last + 1
            after = read.cursor

    async def _end(self, client: Client, producer: Producer) -> None:
        if producer.error is not None:
            raise producer.error
        if self._plan.ending == "cancelled":
            async with asyncio.timeout(600):
                await producer.cancel_requested.wait()
        await producer.close(self._plan.ending)


async def _share(world: World, plan: StreamPlan) -> None:
    """All writers at once; when they are done somebody ends the stream."""
    share = -(-plan.messages // plan.incarnations)
    async with asyncio.TaskGroup() as tasks:
        for number in range(plan.incarnations):
            tasks.create_task(_writer(world, plan, f"{plan.name}-writer-{number}", share))
    async with world.client(f"{plan.name}-closer") as client:
        await client.close(plan.name, plan.ending)


async def _writer(world: World, plan: StreamPlan, name: str, share: int) -> None:
    history = world.histories[plan.name]
    chance = chance_of(world.plan.seed, name)
    async with world.client(name) as client:
        for number in range(share):
            text = payload(chance, id := f"{name}/{number}", plan.payload_bytes)
            history.invoke(name, id, text)
            expected = IMPOSSIBLE_HEAD if chance.random() < 0.1 else None
            try:
                acked = await client.append(plan.name, text, expected_head=expected)
            except ConflictError:
                history.fail(id)
            except UnbrokenError as error:
                history.unknown(id)
                if not error.retryable:
                    raise
            else:
                history.ack(id, acked.first)
            await asyncio.sleep(plan.pause_seconds * chance.random())


def catalog_of(world: World, life: Life) -> Catalog:
    """What a process can execute: a task that counts, with a checkpoint now and then."""

    @task(options=TaskOptions(name="count", resume="start"))
    async def number(run: RunContext, stream: str, messages: int, pause: float) -> AsyncIterator[NewMessage]:
        history = world.histories[stream]
        with world.executions.execute(stream, life):
            for place in range(run.checkpoint_state or 0, messages):
                text = f"{stream}/{place}"
                history.invoke("run", text, text)
                yield NewMessage(kind="text", text=text)
                await asyncio.sleep(pause)
                if place % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
                    await run.checkpoint(place + 1)

    return Catalog([Tasks([number])])
