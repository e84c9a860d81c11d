"""`FaultyStore`: a store with faults in front of it, for whatever stands above the store.

Tests wrap any `StreamingMessageRepository` in it. It changes no result: it fails, delays or holds calls, or hides how they
ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from unbroken.errors import StoreError, UnknownOutcomeError
from unbroken.identity import Grant, Principal
from unbroken.messages import Seq, SessionInfo, StreamId, StreamInfo
from unbroken.quotas import Usage
from unbroken.store.base import (
    Batch,
    Capabilities,
    Page,
    Read,
    StreamFilter,
    StreamingMessageRepository,
    WriteOp,
    WriteResult,
    _Resync,
)
from unbroken.store.tokens import Proof, Revocation, StoredToken

__all__ = [
    "FaultyStore",
    "CallFails",
    "CallHangs",
    "CallLate",
    "PlantedStoreFault",
    "StoreCall",
    "StoreFault",
    "CallUnknown",
]

T = TypeVar("T")
StoreCall = Literal["write", "probe", "lookup", "read", "list", "chore"]
"""`lookup`: one stream or session; `list`: many; `chore`: leases and compaction."""


@dataclass(frozen=True, slots=True)
class CallFails:
    """The call raises `error` and has no effect."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class CallUnknown:
    """The call raises `UnknownOutcomeError`; whether it took effect all the same says `took_effect`."""

    took_effect: bool


@dataclass(frozen=True, slots=True)
class CallHangs:
    """The call waits until `FaultyStore.release`, then goes on."""


@dataclass(frozen=True, slots=True)
class CallLate:
    """The call begins so much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StoreFault:
    """`harm` for the call number `nth` of that kind, counted from 1, and for `times` in a row; None: for ever."""

    harm: CallFails | CallUnknown | CallHangs | CallLate
    call: StoreCall = "write"
    nth: int = 1
    times: int | None = 1


class PlantedStoreFault:
    """A fault that a store has: how many calls it could have bitten, how many it did, and when it first did."""

    def __init__(self, fault: StoreFault) -> None:
        self.fault = fault
        self.seen = 0
        self.bites = 0
        self.bitten = asyncio.Event()

    def meets(self, call: StoreCall) -> bool:
        """Count one call; whether the fault bites it."""
        fault = self.fault
        if call != fault.call:
            return False
        self.seen += 1
        bites = self.seen >= fault.nth and (fault.times is None or self.seen < fault.nth + fault.times)
        if bites:
            self.bites += 1
            self.bitten.set()
        return bites


class FaultyStore:
    """A `StreamingMessageRepository` in front of another one."""

    def __init__(self, store: StreamingMessageRepository) -> None:
        self._store = store
        self._faults: list[PlantedStoreFault] = []
        self._released = asyncio.Event()

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def plant(self, fault: StoreFault) -> PlantedStoreFault:
        """From now on the store has this fault; it counts calls from here."""
        planted = PlantedStoreFault(fault)
        self._released = asyncio.Event()
        self._faults.append(planted)
        return planted

    def release(self) -> None:
        """Let what hangs go on."""
        self._released.set()

    def heal(self) -> None:
        """Take all faults away, and let what hangs go on."""
        self._faults.clear()
        self.release()

    async def _met(self, call: StoreCall, work: Callable[[], Awaitable[T]]) -> T:
        released = self._released
        for planted in [planted for planted in self._faults if planted.meets(call)]:
            match planted.fault.harm:
                case CallFails(error):
                    raise error
                case CallHangs():
                    await released.wait()
                case CallLate(seconds):
                    await asyncio.sleep(seconds)
                case CallUnknown(took_effect):
                    if took_effect:
                        await work()
                    raise UnknownOutcomeError("injected")
        return await work()

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        return await self._met("write", lambda: self._store.write(ops))

    async def probe(self) -> None:
        await self._met("probe", self._store.probe)

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        return await self._met("lookup", lambda: self._store.get(principal, name))

    async def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        return await self._met("lookup", lambda: self._store.get_by_id(stream))

    async def heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamInfo]:
        return await self._met("list", lambda: self._store.heads(streams))

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        return await self._met(
            "read", lambda: self._store.read(stream, after, messages_max=messages_max, bytes_max=bytes_max)
        )

    async def hash_at(self, stream: StreamId, seq: Seq) -> bytes:
        return await self._met("read", lambda: self._store.hash_at(stream, seq))

    async def list_streams(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[StreamInfo]:
        return await self._met("list", lambda: self._store.list_streams(principal, where, limit=limit, after=after))

    async def get_session(self, principal: Principal, name: str) -> SessionInfo | None:
        return await self._met("lookup", lambda: self._store.get_session(principal, name))

    async def usage(self, tenant: str, owner: str | None) -> Usage:
        return await self._met("lookup", lambda: self._store.usage(tenant, owner))

    async def list_sessions(
        self, principal: Principal, *, limit: int, after: str | None, among: tuple[Grant, ...] | None = None
    ) -> Page[SessionInfo]:
        return await self._met(
            "list", lambda: self._store.list_sessions(principal, limit=limit, after=after, among=among)
        )

    async def read_session(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[tuple[StreamInfo, Batch]]:
        return await self._met("read", lambda: self._store.read_session(principal, where, limit=limit, after=after))

    async def active_runs(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        return await self._met("list", lambda: self._store.active_runs(after, limit=limit))

    async def all_streams(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        return await self._met("list", lambda: self._store.all_streams(after, limit=limit))

    async def leased(self, before_ms: int, *, limit: int) -> list[StreamInfo]:
        return await self._met("list", lambda: self._store.leased(before_ms, limit=limit))

    async def expired(self, now_ms: int, *, limit: int) -> list[StreamInfo]:
        return await self._met("list", lambda: self._store.expired(now_ms, limit=limit))

    async def renew_leases(self, now_ms: int, at_least_ms: int) -> int:
        return await self._met("chore", lambda: self._store.renew_leases(now_ms, at_least_ms))

    async def scrub(self, *, everything: bool = False) -> bool:
        return await self._met("chore", lambda: self._store.scrub(everything=everything))

    async def compact(self, stream: StreamId) -> bool:
        return await self._met("chore", lambda: self._store.compact(stream))

    async def put_token(self, token: StoredToken, *, at_most: int) -> bool:
        return await self._met("write", lambda: self._store.put_token(token, at_most=at_most))

    async def token_by_hash(self, digest: bytes) -> StoredToken | None:
        return await self._met("lookup", lambda: self._store.token_by_hash(digest))

    async def list_tokens(
        self, principal: Principal, *, parent: str | None = None, limit: int, after: str | None
    ) -> Page[StoredToken]:
        return await self._met(
            "list", lambda: self._store.list_tokens(principal, parent=parent, limit=limit, after=after)
        )

    async def delete_token(self, principal: Principal, token: str, *, parent: str | None = None) -> bool:
        return await self._met("write", lambda: self._store.delete_token(principal, token, parent=parent))

    async def revoke(self, revocation: Revocation, now_ms: int) -> None:
        await self._met("write", lambda: self._store.revoke(revocation, now_ms))

    async def revoked(self, proofs: Collection[Proof]) -> frozenset[Proof]:
        return await self._met("lookup", lambda: self._store.revoked(proofs))

    def hints(self) -> AsyncIterator[StreamId | _Resync]:
        return self._store.hints()
