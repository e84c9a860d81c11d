"""The reference store: everything in the memory of one process, lost with it.

It is the yardstick of the others, in behaviour (one contract suite runs over all) and in speed (no storage at all). Safe
to use from several threads; it never blocks longer than one operation takes.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from itertools import count
from threading import Lock

from unbroken.errors import NotFoundError
from unbroken.identity import Grant, Principal
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import (
    TERMINAL_STATES,
    Epoch,
    Seq,
    SessionInfo,
    StreamId,
    StreamInfo,
    join_encoded,
)
from unbroken.protocol.chain import leaf_marks
from unbroken.quotas import Usage, kept_bytes
from unbroken.store import reading
from unbroken.store.apply import apply
from unbroken.store.base import (
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
from unbroken.store.compaction import merge, pick
from unbroken.store.entry import CLEAN, Entry, ProducerState
from unbroken.store.erasing import erased_batch, punctured
from unbroken.store.listing import covered_session, matches, page, parse_position, parse_token, read_streams
from unbroken.store.memory_tokens import MemoryCredentials

__all__ = ["MemoryStore"]

_SessionKey = tuple[str, str, str]


class _Log:
    """The stored batches of one stream, and the last seq of each for finding them."""

    __slots__ = ("batches", "compacted", "lasts")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.lasts: list[Seq] = []
        self.compacted = Seq(0)


class _MemoryTables:
    """The rows: `Tables` for writing and `Source` for reading."""

    def __init__(self) -> None:
        self.entries: dict[StreamId, Entry] = {}
        self.names: dict[tuple[str, str, str], Entry] = {}
        self.logs: dict[StreamId, _Log] = {}
        self.branches: dict[StreamId, dict[StreamId, Entry]] = {}
        self.sessions: dict[_SessionKey, tuple[int, SessionInfo]] = {}
        self._ids = count(1)
        self._session_ids = count(1)

    def by_id(self, stream: StreamId) -> Entry | None:
        return self.entries.get(stream)

    def by_name(self, tenant: str, owner: str, name: str) -> Entry | None:
        return self.names.get((tenant, owner, name))

    def producer(self, entry: Entry, producer_id: str) -> ProducerState | None:
        return entry.producers.get(producer_id)

    def identify(self) -> tuple[StreamId, Epoch]:
        fresh = next(self._ids)
        return StreamId(fresh), Epoch(fresh)

    def insert(self, entry: Entry) -> None:
        info = entry.fixed
        self.entries[info.id] = self.names[info.tenant, info.owner, info.name] = entry
        self.logs[info.id] = _Log()
        if info.forked_from is not None:
            self.branches.setdefault(info.forked_from, {})[info.id] = entry

    def extend(self, entry: Entry, first: Seq, messages: Sequence[bytes], before: bytes) -> None:
        log = self.logs[entry.fixed.id]
        body = join_encoded(tuple(messages))
        log.batches.append(Batch(first, entry.head, body, entry.hash, marks=leaf_marks(entry.leaves)))
        log.lasts.append(entry.head)

    def changed(self, entry: Entry, producer_id: str | None) -> None:
        entry.dirty = CLEAN

    def hide(self, entry: Entry) -> None:
        entry.dirty = CLEAN

    def remove(self, entry: Entry) -> None:
        info = entry.fixed
        del self.entries[info.id], self.names[info.tenant, info.owner, info.name], self.logs[info.id]
        if info.forked_from is not None:
            siblings = self.branches[info.forked_from]
            del siblings[info.id]
            if not siblings:
                del self.branches[info.forked_from]

    def erase(self, entry: Entry) -> None:
        log = self.logs[entry.fixed.id]
        log.batches = [erased_batch(batch, entry.salts) for batch in log.batches]
        entry.producers.clear()
        for one, salts in punctured(self, entry):
            one.put(replace(one.info, salts=salts))
            one.dirty = CLEAN

    def forks(self, stream: StreamId) -> Sequence[Entry]:
        return tuple(self.branches.get(stream, {}).values())

    def reclaim(self, entry: Entry, upto: Seq) -> None:
        log = self.logs[entry.fixed.id]
        gone = bisect_right(log.lasts, upto)
        if gone:
            entry.base_seq, entry.base_hash = log.lasts[gone - 1], log.batches[gone - 1].hash
            del log.batches[:gone], log.lasts[:gone]

    def hash_at(self, entry: Entry, seq: Seq) -> bytes:
        return reading.hash_at(self, entry, seq)

    def session(self, principal: Principal, name: str) -> SessionInfo | None:
        found = self.sessions.get((principal.tenant, principal.subject, name))
        return None if found is None else found[1]

    def put_session(self, session: SessionInfo) -> None:
        key = (session.tenant, session.owner, session.name)
        found = self.sessions.get(key)
        self.sessions[key] = (next(self._session_ids) if found is None else found[0], session)

    def drop_session(self, principal: Principal, name: str) -> None:
        del self.sessions[principal.tenant, principal.subject, name]

    def session_used(self, principal: Principal, name: str) -> bool:
        where = StreamFilter(session=name)
        return any(matches(entry.fixed, principal, where) for entry in self.entries.values())

    def stored(self, stream: StreamId, after: Seq) -> Iterator[Batch]:
        log = self.logs[stream]
        return iter(log.batches[bisect_right(log.lasts, after) :])


class MemoryStore(MemoryCredentials):
    """A `StreamingMessageRepository` without storage."""

    capabilities = Capabilities(name="memory", durable_on_ack=Durability.MEMORY, shared=False)

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__()
        self._limits = limits
        self._tables = _MemoryTables()
        self._lock = Lock()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to release: what was written stays readable as long as the object lives."""

    async def probe(self) -> None:
        """Memory always works."""

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        with self._lock:
            tables = self._tables
            return [apply(tables, op) for op in ops]

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        with self._lock:
            entry = self._tables.by_name(principal.tenant, principal.subject, name)
            return None if entry is None else entry.info

    async def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        with self._lock:
            entry = self._tables.by_id(stream)
            return None if entry is None else entry.info

    async def heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamInfo]:
        with self._lock:
            found = ((stream, self._tables.by_id(stream)) for stream in streams)
            return {stream: entry.info for stream, entry in found if entry is not None and not entry.fixed.deleted}

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        with self._lock:
            return reading.read(
                self._tables, self._shown(stream), after, messages_max=messages_max, bytes_max=bytes_max
            )

    async def hash_at(self, stream: StreamId, seq: Seq) -> bytes:
        with self._lock:
            return reading.hash_at(self._tables, self._shown(stream), seq)

    def _shown(self, stream: StreamId) -> Entry:
        entry = self._tables.by_id(stream)
        if entry is None or entry.fixed.deleted:
            raise NotFoundError
        return entry

    async def list_streams(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[StreamInfo]:
        before = parse_token(after)
        with self._lock:
            entries = reversed(self._tables.entries.values())
            found = [e.info for e in entries if e.fixed.id < before and matches(e.fixed, principal, where)]
        return page(found[: limit + 1], limit, lambda info: info.id)

    async def get_session(self, principal: Principal, name: str) -> SessionInfo | None:
        with self._lock:
            return self._tables.session(principal, name)

    async def usage(self, tenant: str, owner: str | None) -> Usage:
        with self._lock:
            entries = self._tables.entries.values()
            found = [e.info for e in entries if e.fixed.tenant == tenant and owner in {None, e.fixed.owner}]
            sessions = [s for _, s in self._tables.sessions.values() if s.tenant == tenant and owner in {None, s.owner}]
        alive = [info for info in found if not (info.state.terminal or info.deleted)]
        stored = sum(info.size_bytes + kept_bytes(info.metadata, info.reason, info.run) for info in found)
        return Usage(stored + sum(kept_bytes(session.metadata) for session in sessions), len(alive))

    async def list_sessions(
        self, principal: Principal, *, limit: int, after: str | None, among: tuple[Grant, ...] | None = None
    ) -> Page[SessionInfo]:
        before = parse_token(after)
        with self._lock:
            found = [
                (row_id, session)
                for row_id, session in reversed(self._tables.sessions.values())
                if row_id < before
                and (session.tenant, session.owner) == (principal.tenant, principal.subject)
                and covered_session(session, among)
            ]
        rows = page(found[: limit + 1], limit, lambda row: row[0])
        return Page(tuple(session for _, session in rows.items), rows.next)

    async def read_session(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[tuple[StreamInfo, Batch]]:
        position = parse_position(after)
        with self._lock:
            entries = (
                entry
                for entry in self._tables.entries.values()
                if entry.fixed.id >= position[0] and matches(entry.fixed, principal, where)
            )
            bytes_max = self._limits.read_bytes_max
            return read_streams(self._tables, entries, position, messages_max=limit, bytes_max=bytes_max)

    async def active_runs(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        with self._lock:
            found = [
                entry.info
                for entry in self._tables.entries.values()
                if entry.fixed.run is not None and entry.fixed.ended_ms is None and not entry.fixed.deleted
            ]
        return sorted((info for info in found if info.id > after), key=lambda info: info.id)[:limit]

    async def all_streams(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        with self._lock:
            found = [entry.info for entry in self._tables.entries.values() if not entry.fixed.deleted]
        return sorted((info for info in found if info.id > after), key=lambda info: info.id)[:limit]

    async def leased(self, before_ms: int, *, limit: int) -> list[StreamInfo]:
        with self._lock:
            entries = self._tables.entries.values()
            late = [e.info for e in entries if _before(e.fixed.lease_until_ms, before_ms)]
        return sorted(late, key=lambda info: (info.lease_until_ms, info.id))[:limit]

    async def expired(self, now_ms: int, *, limit: int) -> list[StreamInfo]:
        with self._lock:
            late = [e.info for e in self._tables.entries.values() if _before(e.expires_ms, now_ms + 1)]
        return sorted(late, key=lambda info: (info.expires_ms, info.id))[:limit]

    async def renew_leases(self, now_ms: int, at_least_ms: int) -> int:
        with self._lock:
            held = [entry for entry in self._tables.entries.values() if entry.fixed.lease_until_ms is not None]
            for entry in held:
                full_ms = max(entry.fixed.lease_ms or 0, at_least_ms)
                entry.put(replace(entry.info, lease_until_ms=now_ms + full_ms))
                entry.dirty = CLEAN
            return len(held)

    async def scrub(self, *, everything: bool = False) -> bool:
        """Memory forgets at once."""
        return False

    async def compact(self, stream: StreamId) -> bool:
        with self._lock:
            log, entry = self._tables.logs.get(stream), self._tables.by_id(stream)
            if log is None or entry is None:
                return False
            picked = pick(
                self._tables.stored(stream, max(log.compacted, entry.base_seq)),
                self._limits,
                ended=entry.fixed.state in TERMINAL_STATES,
            )
            log.compacted = max(log.compacted, picked.settled)
            if not picked.run:
                return False
            merged = merge(picked.run)
            start = bisect_right(log.lasts, merged.first - 1)
            log.batches[start : start + len(picked.run)] = [merged]
            log.lasts[start : start + len(picked.run)] = [merged.last]
            return True

    async def hints(self) -> AsyncIterator[StreamId | _Resync]:
        """Nobody else can write, so this never yields; it ends when its reader is cancelled."""
        await asyncio.Event().wait()
        yield RESYNC


def _before(at_ms: int | None, limit_ms: int) -> bool:
    return at_ms is not None and at_ms < limit_ms
