"""What lies between a simulated server and its store: time, trouble, and the death of the process in mid-write.

Every server process gets a `StoreHandle` of its own; when the process dies its handle does, so that nothing which still
unwinds can reach the store. The store itself is a real one: the memory store, or SQLite with its threads run inline.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

from unbroken.clock import Clock
from unbroken.errors import StoreError, StoreUnavailableError, UnknownOutcomeError
from unbroken.identity import Grant, Principal
from unbroken.limits import Limits
from unbroken.messages import Seq, SessionInfo, StreamId, StreamInfo
from unbroken.quotas import Usage
from unbroken.store.base import (
    RESYNC,
    Batch,
    Capabilities,
    Durability,
    Page,
    Read,
    StreamFilter,
    StreamingMessageRepository,
    WriteOp,
    WriteResult,
    _Resync,
)
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.threads import InlineWorker
from unbroken.store.tokens import Proof, Revocation, StoredToken

__all__ = ["MemoryDisk", "SQLiteDisk", "StoreHandle", "Trouble"]

T = TypeVar("T")
WRITE_SECONDS = 0.004
READ_SECONDS = 0.001
HINT_SECONDS = 0.1
Committed = Callable[[Sequence[WriteOp], Sequence[WriteResult]], None]


class Disk(Protocol):
    """What survives the death of server processes, of which several may use it at once."""

    changes: int
    """How often any of them has written."""
    tells: bool
    """Whether the store itself tells a process of what others write."""

    def attach(self) -> StreamingMessageRepository:
        """The store as a new process finds it."""
        ...

    async def detach(self, store: StreamingMessageRepository) -> None:
        """The process that had it is dead: it finished nothing."""
        ...


class MemoryDisk:
    """The reference store; what was written stays, whoever dies. `shared` is whether several processes have it at once."""

    def __init__(self, limits: Limits, *, shared: bool = False) -> None:
        self._store = MemoryStore(limits=limits)
        self.changes = 0
        self.tells = not shared

    def attach(self) -> StreamingMessageRepository:
        return self._store

    async def detach(self, store: StreamingMessageRepository) -> None:
        """Nothing was open."""


class SQLiteDisk:
    """A database file in `directory`. Dead processes leave its write-ahead log, which the next one recovers from."""

    def __init__(self, directory: Path, limits: Limits, clock: Clock) -> None:
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._number = 0
        self._open: list[StreamingMessageRepository] = []
        self.changes = 0
        self.tells = True

    @property
    def path(self) -> Path:
        return self._directory / f"{self._number}.db"

    def attach(self) -> StreamingMessageRepository:
        store = SQLiteStore(
            self.path, durability=Durability.PROCESS, limits=self._limits, clock=self._clock, workers=InlineWorker
        )
        self._open.append(store)
        return store

    async def detach(self, store: StreamingMessageRepository) -> None:
        """Of the last one, copy the files as they are now: what the dead process would still do on its way does not count."""
        if store not in self._open:
            return
        self._open.remove(store)
        if not self._open:
            left = self.path
            self._number += 1
            for suffix in ("", "-wal"):
                file = left.with_name(left.name + suffix)
                if file.exists():
                    shutil.copyfile(file, self.path.with_name(self.path.name + suffix))
        await store.close()


@dataclass(slots=True)
class Trouble:
    """What is wrong with the store just now; `bites` counts how often anybody met it."""

    failing: int = 0
    """How many more writes fail."""
    error: type[StoreError] = StoreUnavailableError
    applied: bool = False
    """With an unknown outcome: whether the write had happened."""
    hanging: asyncio.Event | None = None
    """While set and not over, nothing is answered."""
    bites: int = 0

    async def meet(self) -> None:
        """Wait as long as the store hangs."""
        if self.hanging is not None:
            self.bites += 1
            await self.hanging.wait()


class StoreHandle:
    """One process's access to a store."""

    def __init__(self, disk: Disk, chance: Random, trouble: Trouble, committed: Committed) -> None:
        self._disk = disk
        self._store = disk.attach()
        self._changes = disk.changes
        self._chance = chance
        self._trouble = trouble
        self._committed = committed
        self.dead = False

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        if not self.dead:
            await self._store.close()

    async def detach(self) -> None:
        """The process is gone, in whatever way."""
        await self._disk.detach(self._store)

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        """Everything or nothing; a process may die before or after it, and learn nothing of it."""
        await self._pass(self._chance.random() * WRITE_SECONDS)
        trouble = self._trouble
        fails = trouble.failing > 0
        if fails:
            trouble.failing -= 1
            trouble.bites += 1
            if trouble.error is not UnknownOutcomeError or not trouble.applied:
                raise trouble.error("simulated")
        results = await self._store.write(ops)
        self._disk.changes += 1
        self._changes += 1
        self._committed(ops, results)
        await asyncio.sleep(self._chance.random() * WRITE_SECONDS)
        self._check()
        if fails:
            raise UnknownOutcomeError("simulated")
        return results

    async def probe(self) -> None:
        await self._pass(self._chance.random() * WRITE_SECONDS)
        if self._trouble.failing:
            self._trouble.failing -= 1
            raise self._trouble.error("simulated")
        await self._store.probe()

    async def _pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._trouble.meet()
        self._check()

    def _check(self) -> None:
        if self.dead:
            raise StoreUnavailableError("this process is dead")

    async def _read(self, work: Coroutine[object, object, T]) -> T:
        try:
            await self._pass(self._chance.random() * READ_SECONDS)
        except BaseException:
            work.close()
            raise
        return await work

    async def _change(self, work: Coroutine[object, object, T]) -> T:
        """A write beside the log's: it fails while writes fail."""
        if self._trouble.failing:
            work.close()
            self._trouble.failing -= 1
            self._trouble.bites += 1
            raise self._trouble.error("simulated")
        return await self._read(work)

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        return await self._read(self._store.get(principal, name))

    async def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        return await self._read(self._store.get_by_id(stream))

    async def heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamInfo]:
        return await self._read(self._store.heads(streams))

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        return await self._read(self._store.read(stream, after, messages_max=messages_max, bytes_max=bytes_max))

    async def hash_at(self, stream: StreamId, seq: Seq) -> bytes:
        return await self._read(self._store.hash_at(stream, seq))

    async def list_streams(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[StreamInfo]:
        return await self._read(self._store.list_streams(principal, where, limit=limit, after=after))

    async def get_session(self, principal: Principal, name: str) -> SessionInfo | None:
        return await self._read(self._store.get_session(principal, name))

    async def usage(self, tenant: str, owner: str | None) -> Usage:
        return await self._read(self._store.usage(tenant, owner))

    async def list_sessions(
        self, principal: Principal, *, limit: int, after: str | None, among: tuple[Grant, ...] | None = None
    ) -> Page[SessionInfo]:
        return await self._read(self._store.list_sessions(principal, limit=limit, after=after, among=among))

    async def read_session(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[tuple[StreamInfo, Batch]]:
        return await self._read(self._store.read_session(principal, where, limit=limit, after=after))

    async def active_runs(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        return await self._read(self._store.active_runs(after, limit=limit))

    async def all_streams(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        return await self._read(self._store.all_streams(after, limit=limit))

    async def leased(self, before_ms: int, *, limit: int) -> list[StreamInfo]:
        return await self._read(self._store.leased(before_ms, limit=limit))

    async def expired(self, now_ms: int, *, limit: int) -> list[StreamInfo]:
        return await self._read(self._store.expired(now_ms, limit=limit))

    async def renew_leases(self, now_ms: int, at_least_ms: int) -> int:
        return await self._change(self._store.renew_leases(now_ms, at_least_ms))

    async def scrub(self, *, everything: bool = False) -> bool:
        return await self._read(self._store.scrub(everything=everything))

    async def compact(self, stream: StreamId) -> bool:
        return await self._change(self._store.compact(stream))

    async def put_token(self, token: StoredToken, *, at_most: int) -> bool:
        return await self._read(self._store.put_token(token, at_most=at_most))

    async def token_by_hash(self, digest: bytes) -> StoredToken | None:
        return await self._read(self._store.token_by_hash(digest))

    async def list_tokens(
        self, principal: Principal, *, parent: str | None = None, limit: int, after: str | None
    ) -> Page[StoredToken]:
        return await self._read(self._store.list_tokens(principal, parent=parent, limit=limit, after=after))

    async def delete_token(self, principal: Principal, token: str, *, parent: str | None = None) -> bool:
        return await self._read(self._store.delete_token(principal, token, parent=parent))

    async def revoke(self, revocation: Revocation, now_ms: int) -> None:
        await self._read(self._store.revoke(revocation, now_ms))

    async def revoked(self, proofs: Collection[Proof]) -> frozenset[Proof]:
        return await self._read(self._store.revoked(proofs))

    async def hints(self) -> AsyncIterator[StreamId | _Resync]:
        if self._disk.tells:
            async for hint in self._store.hints():
                yield hint
        while True:
            await asyncio.sleep(HINT_SECONDS)
            if self._changes != self._disk.changes:
                self._changes = self._disk.changes
                yield RESYNC
