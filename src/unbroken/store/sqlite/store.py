"""`SQLiteStore`: the repository as the log sees it, over a writer thread, reader threads and a checkpoint thread.

The composition root builds it, the log and the faces call it from their event loop. It never does I/O in that loop, and
acknowledges only what the chosen durability promises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import apsw

from unbroken.clock import Clock, SystemClock
from unbroken.errors import StoreError, StoreUnavailableError
from unbroken.identity import Grant, Principal
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import Seq, SessionInfo, StreamId, StreamInfo
from unbroken.quotas import Usage
from unbroken.store.base import (
    AWAY,
    RESYNC,
    Batch,
    Capabilities,
    Durability,
    Page,
    Read,
    StreamFilter,
    WriteOp,
    WriteResult,
    _Resync,
)
from unbroken.store.keys import Wrapping
from unbroken.store.migrate import load_migrations, migrate
from unbroken.store.sealing import Keyring
from unbroken.store.sqlite import credentials
from unbroken.store.sqlite.ballast import Ballast
from unbroken.store.sqlite.checkpoint import Checkpointer
from unbroken.store.sqlite.connection import Connection, check_sqlite
from unbroken.store.sqlite.examine import look_for_damage
from unbroken.store.sqlite.reader import Reader
from unbroken.store.sqlite.schema import SQLiteTarget
from unbroken.store.sqlite.stream_keys import begin_sealing
from unbroken.store.sqlite.writer import Writer
from unbroken.store.threads import ThreadWorker, Worker, WorkerFactory
from unbroken.store.tokens import Proof, Revocation, StoredToken

__all__ = ["SQLiteStore"]

T = TypeVar("T")
OPEN_WAIT_SECONDS = 0.05
REST_AFTER_REWRITE = 3
"""How often as long as it has taken to write the whole file anew it is not done again."""
_log = logging.getLogger(__name__)


class _Parts:
    """What an open store consists of; each part is used on its own worker only."""

    def __init__(self, workers: WorkerFactory, limits: Limits) -> None:
        self.writing = workers("unbroken-writer", limits.store_pending_max)
        self.checkpointing = workers("unbroken-checkpoint", limits.store_pending_max)
        self.reading = [workers(f"unbroken-reader-{n}", limits.store_pending_max) for n in range(limits.store_readers)]
        self.writer: Writer | None = None
        self.checkpointer: Checkpointer | None = None
        self.readers: list[tuple[Worker, Reader]] = []

    async def stop(self) -> None:
        """Finish what was begun, empty the write-ahead log, and let go of the file."""
        for worker, reader in self.readers:
            await worker.run(reader.close)
        if self.checkpointer is not None:
            await self.writing.run(lambda: None)
            await self.checkpointing.run(self.checkpointer.finish)
        if self.writer is not None:
            await self.writing.run(self.writer.close)
        for worker in (*self.reading, self.writing, self.checkpointing):
            await worker.stop()


class SQLiteStore:
    """A `StreamingMessageRepository` in one file at `path`, which is created when it is missing (its directory too).

    With `durability=disk` an acknowledged write survives the loss of power, with `process` the death of the process.
    Several processes may use the file at once; each waits for the others' commits for `store_busy_seconds_max` at most.
    `compress` makes compaction store large chunks compressed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        durability: Durability = Durability.DISK,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        workers: WorkerFactory = ThreadWorker,
        compress: bool = False,
    ) -> None:
        if durability not in {Durability.DISK, Durability.PROCESS}:
            raise ValueError(f"SQLite is durable to the disk or the process, not {durability}")
        self.capabilities = Capabilities(name="sqlite", durable_on_ack=durability, shared=True)
        self._path = Path(path)
        self._limits = limits
        self._clock = SystemClock() if clock is None else clock
        self._workers = workers
        self._compress = compress
        self._ring: Keyring | None = None
        self._parts: _Parts | None = None
        self._next_reader: Callable[[], tuple[Worker, Reader]] | None = None
        self._open_lock = asyncio.Lock()
        self._rested = 0.0
        """When the writer has rested from writing the whole file anew."""

    def encrypt_with(self, wrapping: Wrapping) -> None:
        """Before it is opened: what streams hold is encrypted, each with a key of its own, which `wrapping` wraps."""
        assert self._parts is None
        self._ring = Keyring(wrapping)

    async def open(self) -> None:
        """Open the file and bring its schema up to date; idempotent.

        Raises `StoreUnsupportedError` for an SQLite or a database that does not fit, `StoreUnavailableError` when the file
        cannot be opened or stays locked, `ConfigurationError` when it is encrypted and the key is missing or wrong.
        """
        check_sqlite(apsw.SQLITE_VERSION_NUMBER)
        check_sqlite(_version_number(apsw.sqlite_lib_version()))
        async with self._open_lock:
            if self._parts is not None:
                return
            parts = _Parts(self._workers, self._limits)
            try:
                await self._start(parts)
            except BaseException:
                await parts.stop()
                raise
            self._parts = parts
            self._next_reader = cycle(parts.readers).__next__
            self._give_back(parts)

    async def _start(self, parts: _Parts) -> None:
        writer = parts.writer = await self._patiently(parts, lambda: self._open_writer(parts))
        assert writer is not None
        parts.checkpointer = await parts.checkpointing.run(lambda: Checkpointer(self._connect(), self._limits))
        for worker in parts.reading:
            connection = await worker.run(lambda: self._connect(read_only=True))
            parts.readers.append((worker, Reader(connection)))

    async def _patiently(self, parts: _Parts, work: Callable[[], T]) -> T:
        """Run on the writer; switching a new file to WAL does not wait for others by itself, so it is tried again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.store_busy_seconds_max
        while True:
            try:
                return await parts.writing.run(work)
            except StoreUnavailableError as error:
                if not isinstance(error.__cause__, apsw.BusyError) or loop.time() > deadline:
                    raise
                await asyncio.sleep(OPEN_WAIT_SECONDS)

    def _open_writer(self, parts: _Parts) -> Writer:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
        except OSError as error:
            raise StoreUnavailableError(f"the database file cannot be made: {error.strerror}") from error
        ballast = Ballast(self._path, self._limits.store_ballast_bytes)
        try:
            return self._writer(parts, ballast)
        except StoreError:
            if not ballast.give_way():
                raise
            return self._writer(parts, ballast)

    def _writer(self, parts: _Parts, ballast: Ballast) -> Writer:
        connection = self._connect(on_wal=lambda pages: self._wal_grew(parts, pages))
        try:
            migrate(SQLiteTarget(connection), load_migrations("sqlite"), self._clock.now_ms())
            begin_sealing(connection)
            look_for_damage(connection, self._limits)
            ballast.reserve()
            return Writer(connection, ballast, self._limits, compress=self._compress)
        except BaseException:
            connection.close()
            raise

    def _connect(self, *, read_only: bool = False, on_wal: Callable[[int], None] | None = None) -> Connection:
        full = self.capabilities.durable_on_ack is Durability.DISK
        return Connection(self._path, self._limits, full=full, read_only=read_only, on_wal=on_wal, ring=self._ring)

    def _wal_grew(self, parts: _Parts, pages: int) -> None:
        """On the writer's thread, after each commit."""
        checkpointer, writer = parts.checkpointer, parts.writer
        if checkpointer is None or writer is None:
            return

        def help_out() -> None:
            writer.copy_log(checkpointer)

        def step() -> None:
            if checkpointer.step():
                parts.writing.post(help_out)

        if checkpointer.wanted(pages):
            parts.checkpointing.post(step)
        if checkpointer.swamped(pages):
            parts.writing.post(help_out)

    def _give_back(self, parts: _Parts) -> None:
        """Give back space in small steps behind whatever else the writer has to do."""
        writer = parts.writer
        assert writer is not None

        def step() -> None:
            if self._parts is not parts:
                return  # closing: what is left is recorded in the database
            try:
                if writer.give_back():
                    parts.writing.post(step)
            except StoreError as error:
                # It is recorded in the database, so the next trim, delete or start takes it up again.
                _log.warning("giving back space is put off: %s", error)

        parts.writing.post(step)

    async def close(self) -> None:
        async with self._open_lock:
            parts, self._parts = self._parts, None
            if parts is not None:
                await parts.stop()

    def _opened(self) -> _Parts:
        if self._parts is None:
            raise StoreUnavailableError("the store is not open")
        return self._parts

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        parts = self._opened()
        writer = parts.writer
        assert writer is not None

        def work() -> list[WriteResult]:
            results = writer.write(ops)
            if writer.garbage:
                self._give_back(parts)
            return results

        return await parts.writing.run(work)

    async def probe(self) -> None:
        parts = self._opened()
        try:
            await self._write(lambda writer: writer.probe())
        finally:
            if parts.writer is not None and parts.writer.garbage:
                self._give_back(parts)  # it may have been put off when writing failed

    async def _write(self, work: Callable[[Writer], T]) -> T:
        parts = self._opened()
        writer = parts.writer
        assert writer is not None
        return await self._bounded(parts.writing, lambda: work(writer))

    async def _read(self, work: Callable[[Reader], T]) -> T:
        self._opened()
        assert self._next_reader is not None
        worker, reader = self._next_reader()
        return await self._bounded(worker, lambda: work(reader))

    async def _bounded(self, worker: Worker, work: Callable[[], T]) -> T:
        """What `work` gives; `StoreUnavailableError` when that takes too long. It is done all the same, later."""
        try:
            async with asyncio.timeout(self._limits.store_seconds_max):
                return await worker.run(work)
        except TimeoutError:
            seconds = self._limits.store_seconds_max
            raise StoreUnavailableError(f"the store did not answer within {seconds:g} s") from None

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        return await self._read(lambda reader: reader.get(principal, name))

    async def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        return await self._read(lambda reader: reader.get_by_id(stream))

    async def heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamInfo]:
        return await self._read(lambda reader: reader.heads(streams))

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        return await self._read(lambda reader: reader.read(stream, after, messages_max, bytes_max))

    async def hash_at(self, stream: StreamId, seq: Seq) -> bytes:
        return await self._read(lambda reader: reader.hash_at(stream, seq))

    async def list_streams(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[StreamInfo]:
        return await self._read(lambda reader: reader.list_streams(principal, where, limit, after))

    async def get_session(self, principal: Principal, name: str) -> SessionInfo | None:
        return await self._read(lambda reader: reader.get_session(principal, name))

    async def usage(self, tenant: str, owner: str | None) -> Usage:
        return await self._read(lambda reader: reader.usage(tenant, owner))

    async def list_sessions(
        self, principal: Principal, *, limit: int, after: str | None, among: tuple[Grant, ...] | None = None
    ) -> Page[SessionInfo]:
        return await self._read(lambda reader: reader.list_sessions(principal, limit, after, among))

    async def read_session(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[tuple[StreamInfo, Batch]]:
        bounds = (limit, self._limits.read_bytes_max)
        return await self._read(lambda reader: reader.read_session(principal, where, bounds, after))

    async def active_runs(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        return await self._read(lambda reader: reader.active_runs(after, limit))

    async def all_streams(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        return await self._read(lambda reader: reader.all_streams(after, limit))

    async def leased(self, before_ms: int, *, limit: int) -> list[StreamInfo]:
        return await self._read(lambda reader: reader.leased(before_ms, limit))

    async def expired(self, now_ms: int, *, limit: int) -> list[StreamInfo]:
        return await self._read(lambda reader: reader.expired(now_ms, limit))

    async def renew_leases(self, now_ms: int, at_least_ms: int) -> int:
        return await self._write(lambda writer: writer.renew_leases(now_ms, at_least_ms))

    async def scrub(self, *, everything: bool = False) -> bool:
        parts, loop = self._opened(), asyncio.get_running_loop()
        checkpointer, writer = parts.checkpointer, parts.writer
        assert checkpointer is not None
        assert writer is not None
        await asyncio.sleep(max(0.0, self._rested - loop.time()))
        began = loop.time()
        try:
            return await self._write(lambda writer: writer.scrub(checkpointer, everything=everything))
        finally:
            if writer.rewrote:  # whoever erases again and again takes no more than a part of the writer's time
                self._rested = loop.time() + REST_AFTER_REWRITE * (loop.time() - began)

    async def compact(self, stream: StreamId) -> bool:
        return await self._write(lambda writer: writer.compact(stream))

    async def put_token(self, token: StoredToken, *, at_most: int) -> bool:
        return await self._change(lambda db: credentials.put_token(db, token, at_most))

    async def token_by_hash(self, digest: bytes) -> StoredToken | None:
        return await self._read(lambda reader: reader.look(lambda db: credentials.token_by_hash(db, digest)))

    async def list_tokens(
        self, principal: Principal, *, parent: str | None = None, limit: int, after: str | None
    ) -> Page[StoredToken]:
        return await self._read(
            lambda reader: reader.look(lambda db: credentials.list_tokens(db, principal, parent, limit, after))
        )

    async def delete_token(self, principal: Principal, token: str, *, parent: str | None = None) -> bool:
        return await self._change(lambda db: credentials.delete_token(db, principal, token, parent))

    async def revoke(self, revocation: Revocation, now_ms: int) -> None:
        await self._change(lambda db: credentials.revoke(db, revocation, now_ms))

    async def revoked(self, proofs: Collection[Proof]) -> frozenset[Proof]:
        return await self._read(lambda reader: reader.look(lambda db: credentials.revoked(db, proofs)))

    async def _change(self, work: Callable[[Connection], T]) -> T:
        return await self._write(lambda writer: writer.change(work))

    async def hints(self) -> AsyncIterator[StreamId | _Resync]:
        """`RESYNC` whenever another process has written, noticed within `hint_poll_seconds`; never for our own writes.

        `AWAY` when the database could not be asked, or its files are no longer there.
        """
        seen = 0
        while True:
            try:
                now = await self._write(lambda writer: writer.poll())
            except StoreError:
                if self._parts is None:
                    return
                yield AWAY
            else:
                if now != seen:
                    seen = now
                    yield RESYNC
            await asyncio.sleep(self._limits.hint_poll_seconds)


def _version_number(version: str) -> int:
    major, minor, patch, *_ = (*map(int, version.split(".")), 0, 0)
    return major * 1_000_000 + minor * 1000 + patch
