"""`unbroken bench --queries`: what the hot queries cost in small and large databases, and how much that grows.

The command line calls `compare_queries`. It fills databases of its own in the benchmark's folder, measures all sizes in turn
in one run, and removes them; the product's own store answers.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Final
from urllib.parse import quote

import apsw

from unbroken.bench.filling import OWNER, World, fill
from unbroken.clock import SystemClock
from unbroken.limits import DEFAULT_LIMITS
from unbroken.log import Log
from unbroken.messages import NewMessage, Seq, StreamId, StreamInfo, encode_message
from unbroken.observe.metrics import Metrics
from unbroken.runs.summary import read_summary
from unbroken.server.app import open_store
from unbroken.store.base import Append, Durability, StreamFilter, StreamingMessageRepository
from unbroken.streams import Streams

__all__ = ["HOT", "SIZES", "SIZES_SMALL", "QueryCost", "compare_queries"]

SIZES: Final = (10_000, 100_000, 1_000_000)
SIZES_SMALL: Final = (1_000, 10_000, 100_000)
CALLS: Final = 100
"""How often each query is asked of each size, in each round."""
SEED: Final = 7
LISTED: Final = 50
READ: Final = 100
BYTES: Final = DEFAULT_LIMITS.read_bytes_max
MESSAGE: Final = encode_message(NewMessage(text="y" * 256), time_ms=0, producer=None, limits=DEFAULT_LIMITS)


@dataclass(slots=True)
class Work:
    """What SQLite did: steps of its virtual machine, those of them that read a table in full, and the statements."""

    steps: int = 0
    scanned: int = 0
    statements: set[str] = field(default_factory=set)

    def took(self, told: dict[str, object]) -> None:
        """Count one statement that has ended; called by SQLite, on the thread that ran it."""
        status, sql = told["stmt_status"], told["sql"]
        assert isinstance(status, dict)
        self.steps += status["SQLITE_STMTSTATUS_VM_STEP"]
        self.scanned += status["SQLITE_STMTSTATUS_FULLSCAN_STEP"]
        self.statements.add(str(sql))


class Meter:
    """Where the statements of one database are counted now."""

    def __init__(self) -> None:
        self.work = Work()

    def took(self, told: dict[str, object]) -> None:
        self.work.took(told)


@dataclass(frozen=True, slots=True)
class Asked:
    """One database and who asks."""

    store: StreamingMessageRepository
    streams: Streams
    world: World
    meter: Meter
    chance: Random

    def one(self) -> StreamInfo:
        """One of the many streams, by chance."""
        return self.chance.choice(self.world.small)

    def place(self) -> Seq:
        """Any place in the long stream that has `READ` messages behind it."""
        return Seq(self.chance.randrange(max(self.world.messages // 2 - READ, 1)))

    def token(self) -> str:
        """Where a listing of streams goes on, by chance."""
        return str(self.chance.choice(self.world.small[LISTED:] or self.world.small).id + 1)


async def _append(asked: Asked, stream: StreamInfo) -> object:
    op = Append(stream=stream.id, epoch=stream.epoch, messages=(MESSAGE,), now_ms=asked.world.now_ms)
    return await asked.store.write([op])


async def _read(asked: Asked, after: Seq) -> object:
    return await asked.store.read(asked.world.long.id, after, messages_max=READ, bytes_max=BYTES)


async def _tail(asked: Asked) -> object:
    head = (await asked.store.heads([asked.world.long.id]))[asked.world.long.id].head
    return await _read(asked, Seq(head - 10))


async def _list(
    asked: Asked, *, after: str | None = None, session: str | None = None, prefix: str | None = None
) -> object:
    where = StreamFilter(session=session, prefix=prefix)
    return await asked.store.list_streams(OWNER, where, limit=LISTED, after=after)


async def _read_session(asked: Asked) -> object:
    where = StreamFilter(session=asked.one().session)
    return await asked.store.read_session(OWNER, where, limit=READ, after=None)


async def _summary(asked: Asked) -> object:
    stream = await asked.store.get_by_id(asked.world.long.id)
    assert stream is not None
    return await read_summary(asked.streams, stream)


HOT: Final[dict[str, Callable[[Asked], Awaitable[object]]]] = {
    "append a message to a long stream": lambda asked: _append(asked, asked.world.long),
    "append a message to one of many streams": lambda asked: _append(asked, asked.one()),
    "tail: the head, and the messages before it": _tail,
    "read 100 messages at any place": lambda asked: _read(asked, asked.place()),
    "find a stream by its name": lambda asked: asked.store.get(OWNER, asked.one().name),
    "list the newest 50 streams": _list,
    "list 50 streams from any place": lambda asked: _list(asked, after=asked.token()),
    "list the streams of a session": lambda asked: _list(asked, session=asked.one().session),
    "list the streams of a prefix": lambda asked: _list(asked, prefix=asked.one().name[:-1]),
    "list the newest 50 sessions": lambda asked: asked.store.list_sessions(OWNER, limit=LISTED, after=None),
    "read 100 messages of a session": _read_session,
    "look for leases that ran out": lambda asked: asked.store.leased(asked.world.now_ms, limit=LISTED),
    "look for streams that expired": lambda asked: asked.store.expired(asked.world.now_ms, limit=LISTED),
    "look for runs that have not ended": lambda asked: asked.store.active_runs(StreamId(0), limit=LISTED),
    "sum a long run up": _summary,
}
"""What a server asks all the time, by what it is."""


@dataclass(frozen=True, slots=True)
class QueryCost:
    """One query at one size: medians of what a call took, through the store's thread and back, and SQLite's work for it."""

    query: str
    messages: int
    microseconds: float
    """Of processor time, in all threads: what other work on the machine disturbs least."""
    elapsed: float
    steps: float
    """Of SQLite's virtual machine: what a quiet or a busy machine makes no difference to."""
    scanned: int
    """Steps through a table that was read in full; there are none."""
    statements: frozenset[str]


async def compare_queries(
    folder: Path, sizes: Sequence[int], *, rounds: int, calls: int = CALLS, say: Callable[[str], None]
) -> list[QueryCost]:
    """Fill a database of each size below `folder`, and ask every query of each in turn, `rounds` times `calls`."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="queries-", dir=folder))
        databases = []
        for size in sizes:
            say(f"filling a database of {size:,} messages")
            databases.append(await stack.enter_async_context(_database(Path(directory) / f"{size}.db", size)))
        taken = {(query, asked.world.messages): _Taken() for query in HOT for asked in databases}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for query in HOT:
                for _ in range(calls):  # one size after the other, so that a noisy moment hurts all alike
                    for asked in databases:
                        await _ask(asked, HOT[query], taken[query, asked.world.messages])
    return [found.cost(query, size) for (query, size), found in taken.items()]


@dataclass(slots=True)
class _Taken:
    """The calls of one query at one size so far."""

    processor: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)
    work: Work = field(default_factory=Work)

    def cost(self, query: str, messages: int) -> QueryCost:
        steps = self.work.steps / len(self.elapsed)
        statements = frozenset(self.work.statements)
        return QueryCost(
            query, messages, median(self.processor), median(self.elapsed), steps, self.work.scanned, statements
        )


async def _ask(asked: Asked, query: Callable[[Asked], Awaitable[object]], taken: _Taken) -> None:
    """One call, and what it took."""
    asked.meter.work = taken.work
    elapsed, processor = time.perf_counter_ns(), time.process_time_ns()
    await query(asked)
    taken.processor.append((time.process_time_ns() - processor) / 1_000)
    taken.elapsed.append((time.perf_counter_ns() - elapsed) / 1_000)


@asynccontextmanager
async def _database(path: Path, messages: int) -> AsyncIterator[Asked]:
    """A filled database, opened again so that nothing of it is remembered by the store."""
    address = f"sqlite:///{quote(str(path))}"
    store = open_store(address, Durability.PROCESS)
    await store.open()
    try:
        world = await fill(store, messages)
    finally:
        await store.close()
    meter = Meter()
    store = open_store(address, Durability.PROCESS)
    with _traced(meter):
        await store.open()
    try:
        log = Log(store, limits=DEFAULT_LIMITS, metrics=Metrics())
        streams = Streams(log, store, limits=DEFAULT_LIMITS, clock=SystemClock())
        yield Asked(store, streams, world, meter, Random(SEED))  # noqa: S311 - repeatable, no secret
    finally:
        await asyncio.shield(store.close())


@contextmanager
def _traced(meter: Meter) -> Iterator[None]:
    """Every connection that is opened inside tells `meter` of its statements, for as long as it lives."""

    def watch(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, meter.took)

    apsw.connection_hooks.append(watch)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(watch)
