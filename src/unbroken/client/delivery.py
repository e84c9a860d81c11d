"""Brings what an outbox holds to a server, each append once, and starts a continuation where the stream has ended meanwhile.

`unbroken run` runs one while its command runs, `unbroken deliver` one for each file that was left. It waits for the network
as long as it must, and never holds up whoever fills the outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from unbroken.client.link import Link
from unbroken.client.outbox import Outbox
from unbroken.client.spill import SpillAppend, SpillHeader, SpillTarget
from unbroken.client.values import Appended
from unbroken.errors import (
    AlreadyExistsError,
    EndedError,
    EpochMismatchError,
    FencedError,
    InvalidError,
    NotFoundError,
    ProducerGapError,
    TooLargeError,
    TransitionError,
    UnbrokenError,
)
from unbroken.limits import Limits
from unbroken.messages import UNREADABLE
from unbroken.protocol import client_outputs as out
from unbroken.protocol.client_requests import RENEWALS
from unbroken.protocol.frames import AppendFrame, CreateFrame, LeaseFrame, ProducerSpec, StreamView

__all__ = ["Delivery", "metadata_of", "run_of"]

_ENDED = (EndedError, FencedError, NotFoundError, ProducerGapError, EpochMismatchError, TransitionError)
"""The stream takes no more of this run, and never will."""
_POISON = (TooLargeError, InvalidError)
"""The server will never take this very append."""
CONTINUATIONS_MAX = 1_000


class _Metadata(msgspec.Struct, frozen=True):
    run: str = ""


class Delivery:
    """One run's way to one server.

    `run` returns when the stream's end is durable there; it raises only a refusal that would repeat (credentials,
    origin, version). Cancelled, it leaves in the outbox what is not acknowledged: sent again later it has no second effect.
    With `lease_seconds` it holds the stream's lease, and `cancel_requested` is set when somebody asks the run to stop.
    """

    def __init__(
        self, link: Link, outbox: Outbox, limits: Limits, *, lease_seconds: float | None, notice: Callable[[str], None]
    ) -> None:
        self.cancel_requested = asyncio.Event()
        self.cancelled_by = ""
        """Who asked for that, as far as the server says it."""
        self.opened = asyncio.Event()
        """Set once the stream is there."""
        self._link = link
        self._outbox = outbox
        self._limits = limits
        self._lease_seconds = lease_seconds
        self._notice = notice
        self._wake = asyncio.Event()
        self._ready = ""  # the stream that was opened in this process
        self._acknowledged = 0

    def wake(self) -> None:
        """There may be something new in the outbox; call it in the loop's thread."""
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            helpers = []
            if self._lease_seconds is not None:
                self._link.hold(self._outbox.header.run, self._lease_seconds)
                helpers.append(group.create_task(self._renew(self._lease_seconds), name="lease of the run"))
                helpers.append(group.create_task(self._save(), name="saving of the run"))
            await self._deliver()
            for helper in helpers:
                helper.cancel()

    async def _deliver(self) -> None:
        outbox = self._outbox
        while not outbox.delivered:
            if self._ready != outbox.target.stream and not (outbox.target.created and self._lease_seconds is None):
                await self._open()
                continue
            append = outbox.peek()
            if append is None:
                self._wake.clear()
                if outbox.peek() is None and not outbox.delivered:
                    await self._wake.wait()
                continue
            await self._send(append)

    async def _send(self, append: SpillAppend) -> None:
        target = self._outbox.target
        frame = AppendFrame(
            id=0,
            stream=target.stream,
            messages=append.messages,
            producer=ProducerSpec(id=self._outbox.header.run, epoch=0, seq=append.seq - target.base),
            close=append.close,
        )
        try:
            outcome = await self._link.request(frame)
        except _ENDED as error:
            self._continue(append.seq, error)
        except _POISON as error:
            self._notice(f"the server does not take an append of this run: {error.message}")
            self._outbox.give_up(append.seq)
        except UnbrokenError as error:
            await self._later(error)
        else:
            assert isinstance(outcome, Appended)
            self._acknowledged += 1
            self._outbox.done(append.seq)

    async def _open(self) -> None:
        """Make the target, or find it when it is this run's own; another's name is left alone."""
        target, header = self._outbox.target, self._outbox.header
        metadata = metadata_of(header)
        if target.continues is not None:
            metadata["continues"] = target.continues
        lease = None if self._lease_seconds is None else ProducerSpec(id=header.run)
        frame = CreateFrame(
            id=0,
            stream=target.stream,
            kind="run",
            session=header.session,
            metadata=msgspec.Raw(msgspec.json.encode(metadata)),
            lease=lease,
            lease_seconds=self._lease_seconds,
        )
        try:
            outcome = await self._link.request(frame)
        except AlreadyExistsError:
            self._rename()
            return
        except UnbrokenError as error:
            if isinstance(error, (*_POISON, TransitionError)):
                raise
            await self._later(error)
            return
        assert isinstance(outcome, tuple)
        view, created = outcome
        if not created and run_of(view) != header.run:
            self._rename()
            return
        self._outbox.retarget(msgspec.structs.replace(target, created=True))
        self._ready = target.stream
        self.opened.set()
        if self._lease_seconds is not None:
            self._link.follow(target.stream, "now", self._on_output)

    def _rename(self) -> None:
        """The target's name is another's: take the next one."""
        target = self._outbox.target
        name = self._next_name(target.stream)
        self._notice(f"the stream {target.stream} exists already; this output goes to {name}")
        self._outbox.retarget(msgspec.structs.replace(target, stream=name, created=False))

    def _continue(self, base: int, error: UnbrokenError) -> None:
        """The target takes no more: what it did not take goes to a continuation."""
        target = self._outbox.target
        name = self._next_name(target.stream)
        self._notice(f"the stream {target.stream} has ended ({error.code}); the rest of this output goes to {name}")
        if self._link.watched_by(target.stream, self._on_output):
            self._link.unfollow(target.stream)
        self._ready = ""
        self._outbox.retarget(SpillTarget(stream=name, base=base, continues=target.stream))

    def _next_name(self, present: str) -> str:
        root = self._outbox.header.stream
        suffix = present.removeprefix(f"{root}.")
        number = int(suffix) if suffix.isascii() and suffix.isdigit() and suffix != present else 1
        if number >= CONTINUATIONS_MAX:
            raise AlreadyExistsError(f"{root} has {number} continuations already")
        return f"{root}.{number + 1}"

    async def _later(self, error: UnbrokenError) -> None:
        """After an error that passes, wait; one that would repeat is raised."""
        if not error.retryable or self._link.refusal is not None:
            raise error
        await asyncio.sleep(self._limits.backoff_seconds_max)

    # --- besides the appends --------------------------------------------------------------------------------------------

    async def _renew(self, seconds: float) -> None:
        """Keep the lease, also while nothing is written, and notice when the stream has ended."""
        while True:
            await asyncio.sleep(seconds / RENEWALS)
            stream = self._ready
            if not stream:
                continue
            frame = LeaseFrame(id=0, stream=stream, producer=ProducerSpec(id=self._outbox.header.run), seconds=seconds)
            try:
                outcome = await self._link.request(frame)
            except UnbrokenError:
                continue  # the next append meets the same, and deals with it
            assert isinstance(outcome, tuple)
            self._look_at(outcome[0])

    async def _save(self) -> None:
        """While the server does not answer, keep what waits in the file, so that it survives this process."""
        while True:
            before = self._acknowledged
            await asyncio.sleep(self._limits.run_offline_seconds_max)
            if self._acknowledged == before and self._outbox.waiting_bytes:
                await asyncio.to_thread(self._outbox.save)

    def _on_output(self, output: out.Output) -> None:
        match output:
            case out.SubscriptionStands(_, _, view) | out.StateChanged(view) | out.Ended(view):
                self._look_at(view)
            case _:
                return

    def _look_at(self, view: StreamView) -> None:
        if view.cancel_requested:
            self.cancelled_by = view.cancel_requested_by or ""
            self.cancel_requested.set()


def metadata_of(header: SpillHeader) -> dict[str, str]:
    """What the stream of a run says of it."""
    return {"run": header.run, "program": header.program}


def run_of(view: StreamView) -> str:
    """The id of the run that made the stream; empty when none did."""
    try:
        return msgspec.json.decode(view.metadata, type=_Metadata).run
    except UNREADABLE:
        return ""
