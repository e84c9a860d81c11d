"""What names mean in a simulated world: one that is deleted and used again, and forks that outlive what they come from.

`ReusedName` has a writer and viewers of its own, `Forks` branches off from streams of the plan. They tell the world of what
must not be; order and content of the plan's own streams are the histories' affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import httpx2

from unbroken.client import Client, Received
from unbroken.errors import AlreadyExistsError, EpochMismatchError, NotFoundError, UnbrokenError
from unbroken.testing.simulation.chance import chance_of
from unbroken.testing.simulation.plan import StreamKind, StreamPlan
from unbroken.testing.simulation.world import World, open_context

__all__ = ["Forks", "ReusedName"]

T = TypeVar("T")
GENERATIONS = 3
MESSAGES = 8
PATIENCE_SECONDS = 0.5
OWN_MESSAGES = 3


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do what may be repeated until it is done."""
    while True:
        try:
            return await work()
        except UnbrokenError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(PATIENCE_SECONDS)


class ReusedName:
    """A name that means one stream after the other; nobody is ever given one for the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = chance_of(world.plan.seed, "again")
        self.name = "again"

    async def write(self) -> None:
        """Create, fill and delete, again and again; the last one stays, and ends."""
        before = 0
        for generation in range(GENERATIONS):
            async with self._world.client(f"again-writer-{generation}") as client:
                view = await patiently(lambda client=client: client.create(self.name))  # type: ignore[misc]
                if view.epoch <= before:
                    self._world.violated(f"{self.name} has the epoch {view.epoch} behind {before}")
                before = view.epoch
                async with client.producer(self.name, id="p") as producer:
                    for number in range(MESSAGES):
                        acked = await producer.append(f"{self.name}/{generation}/{number}")
                        if acked.first != number + 1:
                            self._world.violated(f"{self.name}/{generation}/{number} is at {acked.first}")
                        await asyncio.sleep(self._chance.choice((0.0, 0.3, 2.0)))
                if generation == GENERATIONS - 1:
                    await patiently(lambda client=client: client.close(self.name, "completed"))  # type: ignore[misc]
                else:
                    await self._delete(client)
            await asyncio.sleep(self._chance.choice((0.0, 0.5, 5.0)))

    async def _delete(self, client: Client) -> None:
        try:
            await patiently(lambda: client.delete(self.name))
        except NotFoundError:
            return  # the first attempt has done it

    async def watch(self, viewer: str) -> None:
        """Follow whatever the name means, with the cursor of what it meant before, to the end of the last one."""
        seen = _Seen(self._world, viewer)
        cursor = "start"
        while True:
            async with self._world.client(viewer) as client:
                follow = client.follow(self.name, cursor)
                try:
                    async for received in follow:
                        seen.take(received)
                        cursor = str(received.cursor)
                except EpochMismatchError:
                    cursor = "start"
                except NotFoundError:
                    await asyncio.sleep(PATIENCE_SECONDS)
                else:
                    if (seen.generation, seen.seq) != (GENERATIONS - 1, MESSAGES):
                        self._world.violated(f"{viewer} was told of the end at {seen.generation}/{seen.seq}")
                    return


@dataclass(slots=True)
class _Seen:
    """What a viewer of a name was given so far."""

    world: World
    viewer: str
    epoch: int = 0
    generation: int = -1
    seq: int = 0

    def take(self, received: Received) -> None:
        _, generation, number = str(received.text).split("/")
        if received.epoch != self.epoch:
            if received.epoch < self.epoch or int(generation) <= self.generation:
                self.world.violated(f"{self.viewer} got {received.text} behind generation {self.generation}")
            self.epoch, self.generation, self.seq = received.epoch, int(generation), 0
        self.seq += 1
        if (received.seq, int(number), int(generation)) != (self.seq, self.seq - 1, self.generation):
            self.world.violated(f"{self.viewer} got {received.text} as {received.epoch}:{received.seq}, not {self.seq}")


class Forks:
    """A fork of a stream of the plan in mid-stream, and a fork of that; both are what they were when their source is gone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = chance_of(world.plan.seed, "forks")
        kinds = {StreamKind.LEASED, StreamKind.SHARED}
        self._source = next((one for one in world.plan.streams if one.kind in kinds and not one.trims), None)
        self._places: dict[str, int] = {}
        """Behind which message of its source each fork begins."""

    async def branch_off(self) -> None:
        """Make both."""
        source = self._source
        if source is None:
            return
        await self._world.progress.reach(self._chance.randint(1, source.messages))
        names = [source.name, "fork-0", "fork-1"]
        for before, name in pairwise(names):
            async with self._world.client(f"{name}-writer") as client:
                view = await patiently(lambda client=client, before=before: client.state(before))  # type: ignore[misc]
                self._places[name] = view.head
                await self._fork(before, name, f"{view.epoch if view.head else 0:016d}_{view.head:016d}")
                async with client.producer(name, id="f") as producer:
                    for number in range(OWN_MESSAGES):
                        await producer.append(f"{name}/{number}")

    async def _fork(self, source: str, name: str, offset: str) -> None:
        """PUT it, as often as it takes: the offset makes that safe."""
        headers = {
            "Content-Type": "application/json",
            "Stream-Forked-From": f"/v1/stream/{source}",
            "Stream-Fork-Offset": offset,
        }
        url = self._world.url(f"{name}-writer")
        while True:
            try:
                async with httpx2.AsyncClient(
                    base_url=url, timeout=60, trust_env=False, verify=open_context()
                ) as client:
                    response = await client.put(f"/v1/stream/{name}", headers=headers)
            except httpx2.TransportError:
                await asyncio.sleep(PATIENCE_SECONDS)
                continue
            if response.is_success:
                return
            if response.status_code < 500 and response.status_code != 429:
                self._world.violated(f"{name} is refused: {response.status_code} {response.text}")
                return
            await asyncio.sleep(PATIENCE_SECONDS)

    async def judge(self) -> None:
        """When all is over: each fork is its source up to its place and then its own, also when the source is deleted."""
        if self._source is None or len(self._places) < 2:  # it was refused, and that is told
            return
        async with self._world.client("fork-judge") as client:
            source = await _texts(client, self._source)
            wanted = source[: self._places["fork-0"]] + [f"fork-0/{number}" for number in range(OWN_MESSAGES)]
            deep = wanted[: self._places["fork-1"]] + [f"fork-1/{number}" for number in range(OWN_MESSAGES)]
            await self._compare(client, "fork-0", wanted)
            await client.delete(self._source.name)
            await client.delete("fork-0")
            await self._compare(client, "fork-1", deep)
            for name in (self._source.name, "fork-0"):
                try:
                    await client.create(name)
                except AlreadyExistsError:
                    continue
                self._world.violated(f"{name} is used again while its forks need it")

    async def _compare(self, client: Client, name: str, wanted: list[str]) -> None:
        await client.close(name, "completed")
        found = [str(received.text) async for received in client.follow(name, verify=True)]
        if found != wanted:
            self._world.violated(f"{name} holds {found}, not {wanted}")
        if not (await client.verify(name)).ok:
            self._world.violated(f"the hash chain of {name} does not hold")


async def _texts(client: Client, stream: StreamPlan) -> list[str]:
    return [str(received.text) async for received in client.follow(stream.name)]
