"""Erasure: destroys what the streams of a person, or one stream, held, and keeps what their hash chains need.

Faces and the command line call it for whoever may. It marks streams as erased first, from which moment on nobody can read
them, and returns when the store has destroyed the bytes; what a crash leaves undone the next start goes on with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from unbroken.errors import ForbiddenError, InvalidError, NotFoundError
from unbroken.gate import check_fresh
from unbroken.identity import Principal
from unbroken.messages import FILE_KIND, StreamId, StreamInfo, files_prefix
from unbroken.observe.audit import Audit
from unbroken.observe.audit_events import Erased
from unbroken.redaction.shapes import CREDENTIALS, hide
from unbroken.store.base import Done, PutSession, Rejected, StreamFilter
from unbroken.store.operations import EraseStream
from unbroken.streams import Streams

__all__ = ["Erasure", "Eraser"]

REASON_CHARACTERS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased: streams that were not so before, and sessions whose metadata are gone."""

    streams: int
    sessions: int = 0


class Eraser:
    """Erases, and puts every erasure into the audit log."""

    def __init__(self, streams: Streams, audit: Audit) -> None:
        self._streams = streams
        self._audit = audit

    async def stream(self, principal: Principal, stream: StreamInfo, reason: str) -> Erasure:
        """Erase one stream that the principal may manage, and of a run its files; durable and destroyed when it returns.

        Cancelling the caller stops no erasure that has begun.
        """
        reason = self._reason(reason)
        found = [stream]
        if stream.run is not None:
            whose = Principal(stream.tenant, stream.owner)
            found += await self._all(whose, StreamFilter(prefix=files_prefix(stream.name), kind=FILE_KIND))
        with self._streams.deeds.of(principal, "erase", stream) as attempt:
            count = await self._erase(found, principal, reason)
            attempt.changed = count > 0
        tenant, owner, name = stream.tenant, stream.owner, stream.name
        self._audit.record(Erased(tenant=tenant, owner=owner, stream=name, streams=count, reason=reason, by=principal))
        return Erasure(count)

    async def owner(self, principal: Principal, reason: str) -> Erasure:
        """Erase every stream of the principal, who must be their owner, and the metadata of its sessions.

        What they had deleted before is destroyed with it.
        """
        check_fresh(principal, self._streams.clock.now_ms())
        reason = self._reason(reason)
        if principal.grants is not None:
            raise ForbiddenError("only the owner may erase everything that is theirs")
        count = 0
        with self._streams.deeds.of(principal, "erase"):
            sessions = await self._sessions(principal)
            while found := [info for info in await self._all(principal, StreamFilter()) if info.erased is None]:
                count += await self._erase(found, principal, reason)
            everything = True  # also of what was deleted before, of which no stream says that it was there
            while await self._streams.store.scrub(everything=everything):
                everything = False
        tenant, owner = principal.tenant, principal.subject
        self._audit.record(
            Erased(tenant=tenant, owner=owner, streams=count, sessions=sessions, reason=reason, by=principal)
        )
        return Erasure(count, sessions)

    async def _all(self, owner: Principal, where: StreamFilter) -> list[StreamInfo]:
        """Every such stream, and the deleted ones that those are forks of."""
        found: dict[StreamId, StreamInfo] = {}
        page: str | None = None
        while True:
            most = self._streams.limits.page_items_max
            streams = await self._streams.store.list_streams(owner, where, limit=most, after=page)
            for info in streams.items:
                found[info.id] = info
                await self._add_sources(found, info)
            page = streams.next
            if page is None:
                return list(found.values())

    async def _add_sources(self, found: dict[StreamId, StreamInfo], info: StreamInfo) -> None:
        while info.forked_from is not None and info.forked_from not in found:
            known = await self._streams.store.get_by_id(info.forked_from)
            if known is None or known.id >= info.id:
                return  # the store says what is wrong with it
            if known.deleted:
                found[known.id] = known
            info = known

    async def _erase(self, streams: list[StreamInfo], principal: Principal, reason: str) -> int:
        """How many of them were erased; where the store refuses one, its error is raised when the others are."""
        now = self._streams.clock.now_ms()
        tombstone = msgspec.json.encode({"at": now, "by": principal.by, "reason": reason}).decode()
        fresh = [info for info in streams if info.erased is None]
        results = await self._streams.log.write_all(
            [EraseStream(stream=info.id, epoch=info.epoch, now_ms=now, tombstone=tombstone) for info in fresh]
        )
        while await self._streams.store.scrub():
            pass
        for result in results:
            if isinstance(result, Rejected) and not isinstance(result.error, NotFoundError):  # else deleted meanwhile
                raise result.error
        return sum(isinstance(result, Done) for result in results)

    async def _sessions(self, owner: Principal) -> int:
        streams, count = self._streams, 0
        page: str | None = None
        while True:
            found = await streams.list_sessions(owner, limit=streams.limits.page_items_max, page=page)
            now = streams.clock.now_ms()
            named = [session.name for session in found.items if session.metadata != "{}"]
            await streams.log.write_all(
                [PutSession(principal=owner, name=name, now_ms=now, metadata="{}") for name in named]
            )
            count += len(named)
            page = found.next
            if page is None:
                return count

    def _reason(self, reason: str) -> str:
        """`reason` as it may be stored for ever: it may tell of a credential that leaked, and shall not hold it."""
        if len(reason) > REASON_CHARACTERS_MAX:
            raise InvalidError(f"a reason has at most {REASON_CHARACTERS_MAX} characters", field="reason")
        return self._streams.redacted_text(hide(reason, CREDENTIALS))
