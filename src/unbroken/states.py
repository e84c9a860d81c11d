"""The life cycle of streams: who may produce, how a stream ends, and what happens to one whose producer is gone.

`StreamStateManager` is called by the faces with streams that `Streams` gave out, and runs the reaper. The table of states
is in `messages`; this module touches no message but the last one of a run that nobody took over, and no viewer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence

import msgspec

from unbroken.errors import (
    DrainingError,
    EndedError,
    FencedError,
    InvalidError,
    NotFoundError,
    StoreFullError,
    TransitionError,
    UnbrokenError,
)
from unbroken.identity import Principal
from unbroken.limits import Limits
from unbroken.messages import NewMessage, StreamId, StreamInfo, StreamState
from unbroken.requests import AppendOptions, check_json, check_producer
from unbroken.store.base import Close, Done, Producer, SetLease, SetState, UpdateStream
from unbroken.streams import Streams

__all__ = ["StreamStateManager"]

logger = logging.getLogger(__name__)


class StreamStateManager:
    """Moves streams through their states; every move is durable before it is told to anybody.

    All methods raise `EndedError` when the stream is over, `TransitionError` when the table forbids the move and
    `FencedError` when another producer holds the lease.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._limits = streams.limits

    async def lease(self, stream: StreamInfo, producer: str, epoch: int, seconds: float | None) -> StreamInfo:
        """Take or renew the right to produce for `seconds` (None: the default; 0 gives it back).

        `InvalidError` for a producer or a time that is out of bounds.
        """
        check_producer(Producer(producer, epoch, 0), self._limits)
        now = self._streams.clock.now_ms()
        until = None if seconds == 0 else now + int(self._streams.lease_seconds(seconds) * 1000)
        return await self._done(
            SetLease(
                stream=stream.id,
                epoch=stream.epoch,
                producer=producer,
                producer_epoch=epoch,
                until_ms=until,
                now_ms=now,
            )
        )

    async def close(self, stream: StreamInfo, state: StreamState, reason: str = "{}") -> StreamInfo:
        """End the stream. Ending it again in the same state changes nothing; in another one raises `EndedError`."""
        if not state.terminal:
            raise InvalidError("a stream is closed with a terminal state", field="state")
        check_json("reason", reason, self._limits.reason_bytes_max, self._limits)
        try:
            return await self._set(stream, state, reason)
        except EndedError:
            info = await self._streams.store.get_by_id(stream.id)
            if info is None or info.state is not state:
                raise
            return info

    async def cancel(self, stream: StreamInfo, principal: Principal) -> StreamInfo:
        """Ask for the end: a producer with a lease is told and ends the stream itself; without one it ends now.

        Idempotent: on a stream that has ended, or was asked before, it changes nothing.
        """
        with self._streams.deeds.of(principal, "cancel", stream) as attempt:
            changed = await self._cancel(stream, principal)
            attempt.changed = changed is not None
        if changed is None:
            changed = await self._streams.store.get_by_id(stream.id)
        return stream if changed is None else changed

    async def _cancel(self, stream: StreamInfo, principal: Principal) -> StreamInfo | None:
        """As `cancel`; None when there is nothing to change."""
        while not stream.state.terminal:
            if stream.state is not StreamState.RUNNING:
                try:
                    return await self._cancel_resting(stream, msgspec.json.encode({"by": principal.by}))
                except (EndedError, FencedError):
                    pass
            elif stream.cancel_requested_ms is None:
                return await self._done(
                    UpdateStream(
                        stream=stream.id,
                        epoch=stream.epoch,
                        now_ms=self._streams.clock.now_ms(),
                        cancel_requested_by=principal.by,
                    )
                )
            else:
                return None
            found = await self._streams.store.get_by_id(stream.id)
            if found is None:
                return None
            stream = found
        return None

    async def _cancel_resting(self, stream: StreamInfo, reason: bytes) -> StreamInfo:
        """End what nobody produces; the end of a run is also its last message."""
        if stream.run is None:
            return await self._set(stream, StreamState.CANCELLED, reason.decode())
        message = NewMessage(kind="cancelled", json=msgspec.Raw(reason))
        close = Close(StreamState.CANCELLED, reason.decode())
        await self._tell_end(stream, message, AppendOptions(close=close))
        found = await self._streams.store.get_by_id(stream.id)
        return stream if found is None else found

    async def pause(self, stream: StreamInfo, *, by: Principal | None = None) -> StreamInfo:
        """Rest on purpose: the lease is given up and the reaper leaves the stream alone. `by` as in `Streams.trim`."""
        with self._streams.deeds.of(by, "pause", stream):
            return await self._set(stream, StreamState.PAUSED)

    async def resume(self, stream: StreamInfo, *, by: Principal | None = None) -> StreamInfo:
        """End a pause: the stream is open, and a producer may take the lease again. `by` as in `Streams.trim`."""
        with self._streams.deeds.of(by, "resume", stream):
            if stream.state is not StreamState.PAUSED:
                raise TransitionError(f"the stream is {stream.state}, not paused", state=stream.state.value)
            return await self._set(stream, StreamState.OPEN)

    async def recover(self) -> int:
        """Give every lease its full time again, `lease_seconds` at least, after this server was down; how many there are.

        Not more than that either: a clock that was set back since has put some far into the future.
        """
        at_least_ms = int(self._limits.lease_seconds * 1000)
        return await self._streams.store.renew_leases(self._streams.clock.now_ms(), at_least_ms)

    async def reap(self) -> int:
        """End each running stream whose lease has run out as interrupted; how many.

        A run is left to a supervisor for `run_takeover_seconds` first, which may continue it; its end is also its last
        message, and says that it may have run.
        """
        now = self._streams.clock.now_ms()
        return await self._end(await self._late(now), now)

    async def _late(self, now_ms: int) -> list[StreamInfo]:
        return await self._streams.store.leased(now_ms, limit=self._limits.page_items_max)

    async def _end(self, late: Sequence[StreamInfo], now_ms: int) -> int:
        """End those of `late` that nobody renews or takes over; how many."""
        takeover_ms = int(self._limits.run_takeover_seconds * 1000)
        dead = [_interruption(stream, now_ms) for stream in late if stream.run is None]
        results = await self._streams.log.write_all(dead)
        runs = [stream for stream in late if stream.run and (stream.lease_until_ms or 0) < now_ms - takeover_ms]
        told = await asyncio.gather(*map(self._end_run, runs))
        return sum(isinstance(result, Done) for result in results) + sum(told)  # others live, or are over

    async def _end_run(self, run: StreamInfo) -> bool:
        """End a run that nobody took over, with its last message: first its lease is taken, which fences whoever had it."""
        body = {**_facts(run), "may_have_run": True}
        producer = Producer(f"reaper-{secrets.token_hex(6)}", run.lease_epoch + 1, 0)
        reason = msgspec.json.encode(body)
        close = Close(StreamState.INTERRUPTED, reason.decode())
        message = NewMessage(kind="interrupted", json=msgspec.Raw(reason))
        try:
            await self.lease(run, producer.id, producer.epoch, None)
            await self._tell_end(run, message, AppendOptions(producer=producer, close=close))
        except (FencedError, EndedError, NotFoundError, TransitionError):
            return False  # it was taken over, renewed, ended, paused or deleted meanwhile
        return True

    async def _tell_end(self, run: StreamInfo, message: NewMessage, options: AppendOptions) -> None:
        """End a run that nobody executes with its last message, and count it, as its executor else does."""
        await self._streams.append_durably(run, [message], options)
        self._streams.log.metrics.run_ends.labels(run.kind, message.kind).inc()

    async def run(self) -> None:
        """Reap for ever, every `reap_interval_seconds`.

        When producers had no chance to renew, leases get their full time again first: after a look that came much too late,
        because this machine slept or stalled, when the clock was set, and when the store was away. So they do when one is
        found that had run out before the last look and was not seen then: somebody took it by a clock that was set since.
        """
        loop, clock = asyncio.get_running_loop(), self._streams.clock
        looks = _Looks(self._limits, loop.time(), clock.now_ms())
        away = False
        while True:
            await asyncio.sleep(self._limits.reap_interval_seconds)
            now = clock.now_ms()
            absence = looks.absence(loop.time(), now)
            away = away or self._unwritable
            try:
                late = [] if away or absence else await self._late(now)
                absence = absence or looks.doubt(late, now)
                if absence:
                    logger.warning("%s: leases begin anew", absence)
                if away or absence:
                    await self.recover()
                else:
                    self._streams.log.metrics.reaped.inc(await self._end(late, now))
                away = False
            except DrainingError:
                return
            except UnbrokenError as error:
                away = error.retryable
                logger.warning("cannot look for dead producers: %s %s", error.code, error)

    @property
    def _unwritable(self) -> bool:
        """Whether nobody can renew a lease now; on a disk that is full that needs no room, and works."""
        degraded = self._streams.log.degraded
        return degraded is not None and not isinstance(degraded, StoreFullError)

    async def _set(self, stream: StreamInfo, state: StreamState, reason: str = "{}") -> StreamInfo:
        now = self._streams.clock.now_ms()
        return await self._done(
            SetState(
                stream=stream.id, epoch=stream.epoch, state=state, now_ms=now, reason=self._streams.redacted(reason)
            )
        )

    async def _done(self, op: SetState | SetLease | UpdateStream) -> StreamInfo:
        result = await self._streams.log.write(op)
        assert isinstance(result, Done)
        assert result.stream is not None
        return result.stream


class _Looks:
    """What the reaper's looks tell, by both clocks, of whether producers had their chance to renew."""

    def __init__(self, limits: Limits, seconds: float, now_ms: int) -> None:
        self._limits = limits
        self._seconds = seconds
        self._now_ms = now_ms
        self._complete_ms = now_ms
        self._late: set[tuple[StreamId, int | None]] = set()

    def absence(self, seconds: float, now_ms: int) -> str:
        """A look begins; why nobody could renew since the last one, or empty when everybody could."""
        interval = self._limits.reap_interval_seconds
        passed, passed_by_wall = seconds - self._seconds, (now_ms - self._now_ms) / 1000
        self._seconds, self._now_ms = seconds, now_ms
        tolerance = self._limits.lease_seconds_min / 2  # of the shortest lease, most is still left at any time
        slept = max(passed, passed_by_wall) - interval
        if passed_by_wall < passed - tolerance:
            absence = f"the clock was set back by {passed - passed_by_wall:.1f} s"
        elif passed > interval + max(interval, tolerance) or passed_by_wall > passed + tolerance:
            absence = f"this machine slept for {slept:.1f} s"
        else:
            return ""
        self._saw([], now_ms)
        return absence

    def doubt(self, late: Sequence[StreamInfo], now_ms: int) -> str:
        """Why the leases that are `late` now do not mean that anybody is dead, or empty."""
        doubtful = any(
            lease[1] is not None and lease[1] < self._complete_ms and lease not in self._late
            for lease in map(_lease, late)
        )
        full = len(late) == self._limits.page_items_max
        self._saw(late, late[-1].lease_until_ms or 0 if full else now_ms)
        return "a lease had run out when it was taken" if doubtful else ""

    def _saw(self, late: Sequence[StreamInfo], complete_ms: int) -> None:
        """All leases that had run out before `complete_ms` were seen; those of `late` are left."""
        self._complete_ms = complete_ms
        self._late = set(map(_lease, late))


def _lease(stream: StreamInfo) -> tuple[StreamId, int | None]:
    return stream.id, stream.lease_until_ms


def _facts(stream: StreamInfo) -> dict[str, object]:
    return {
        "cause": "lease_expired",
        "producer": stream.lease_producer,
        "cancel_requested": stream.cancel_requested_ms is not None,
    }


def _interruption(stream: StreamInfo, now_ms: int) -> SetState:
    """What ends a stream whose producer's lease has run out, unless it is renewed first."""
    return SetState(
        stream=stream.id,
        epoch=stream.epoch,
        state=StreamState.INTERRUPTED,
        now_ms=now_ms,
        reason=msgspec.json.encode(_facts(stream)).decode(),
        only_if_lease_before_ms=now_ms,
    )
