# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb run: a command whose output is passed on unchanged and kept as a stream.

It puts the parts together: `Program` runs the command, `Outbox` holds what it writes, `Delivery` brings that to the
server. It never blocks or fails the command because of the server, and exits as the command did.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
from cyclopts import Parameter

from unbroken.cli.bounds import UNBOUNDED, Bounds, Watch
from unbroken.cli.connection import DEFAULT_CONNECTION, Connection
from unbroken.cli.deliver import deliver_left, first_error
from unbroken.cli.exits import UsageError
from unbroken.cli.once import attach, claim, keyed_name, not_started
from unbroken.cli.output import clean, human_bytes, note
from unbroken.cli.runs import DEFAULT_IDENTITY, Identity
from unbroken.cli.streams import by_whom
from unbroken.client.delivery import Delivery
from unbroken.client.link import Link
from unbroken.client.outbox import Outbox
from unbroken.client.spill import SpillHeader, spill_directory, spill_lock
from unbroken.clock import SystemClock
from unbroken.errors import UnbrokenError
from unbroken.limits import DEFAULT_LIMITS, KIB, Limits
from unbroken.messages import StreamState, check_name
from unbroken.runs.environment import without_secrets
from unbroken.runs.program import FORWARDED, Outcome, Program

__all__ = ["Keeping", "run"]

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
HELD_SECONDS_MIN: Final = 1.0
"""For so long a command's own helpers may outlive it, and nobody is told of it."""
Reason = dict[str, int | str | float]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How the output is kept, and what is kept out of it."""

    wait: Annotated[float, Parameter(help="Seconds to wait at the end for a server that is away.")] = 10.0
    spill_max: Annotated[
        int, Parameter(help="Mebibytes of output that may wait in a local file for a server that is away.")
    ] = DEFAULT_LIMITS.spill_bytes_max // (1024 * KIB)
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], negative="", help="Say nothing on stderr but what was lost.")
    ] = False
    pass_secrets: Annotated[
        bool,
        Parameter(
            negative="", help="Let the command have UNBROKEN_TOKEN and our other secrets of the environment too."
        ),
    ] = False

    def environment(self) -> Mapping[str, str]:
        """What the command gets: all of ours but our secrets, which it may print."""
        return os.environ if self.pass_secrets else without_secrets(os.environ)


DEFAULT_KEEPING: Final = Keeping()


def run(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    identity: Identity = DEFAULT_IDENTITY,
    bounds: Bounds = UNBOUNDED,
    keeping: Keeping = DEFAULT_KEEPING,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Run a command and keep what it prints as a stream: unbroken run [OPTIONS] -- COMMAND ARGUMENTS.

    Its output also appears here, unchanged; signals reach it; the exit code is its own (128 + n after signal n). When the
    server is away the output waits in a local file.

    What the command prints is kept, so it is not given our own secrets: UNBROKEN_TOKEN, UNBROKEN_MCP_TOKEN and
    UNBROKEN_ENCRYPTION_KEY are not in its environment. UNBROKEN_TOKEN_FILE is, for commands of ours in it.

    With a key the command is started once: a repeated run with the same key shows the one that exists. That needs the server
    at the beginning. Without one, a name that is taken gets a number.

    Args:
        command: The command and its arguments.
    """
    if not command:
        raise UsageError("there is no command; it follows after --, as in: unbroken run -- make test")
    bounds.check()
    limits = replace(DEFAULT_LIMITS, spill_bytes_max=keeping.spill_max * 1024 * KIB, run_grace_seconds=bounds.grace)
    header = _header(command[0], identity, connection)
    check_name(f"{header.stream}.{limits.name_bytes_max}", limits)
    if identity.key:
        if shutil.which(command[0]) is None:
            return _not_started(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0]))
        found = claim(connection, header, limits)
        if found is not None:
            return attach(found, connection)

    async def supervise() -> int:
        runner = _Runner(command, header, (keeping, bounds), connection, limits)
        try:
            return await runner.run()
        except _NotStartedError as failure:
            status = _not_started(failure.cause)
            if identity.key:
                reason: dict[str, int | str] = {"cause": failure.cause.strerror or "", "exit_code": status}
                await not_started(connection, header, limits, reason)
            return status

    return asyncio.run(supervise())


def _header(command: str, identity: Identity, connection: Connection) -> SpillHeader:
    """What this run is, and where its output goes."""
    run_id = f"run-{secrets.token_hex(6)}"
    program = Path(command).name
    readable = _nameable(program)
    given = keyed_name(readable, identity.key) if identity.key else f"run/{readable}-{run_id[-6:]}"
    return SpillHeader(
        run=run_id,
        stream=identity.name or given,
        server=connection.server,
        session=identity.session,
        program=program,
        started=SystemClock().now_ms(),
    )


class _NotStartedError(Exception):
    """The system would not execute the command."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Runner:
    """One `unbroken run` from its first to its last step."""

    def __init__(
        self,
        command: Sequence[str],
        header: SpillHeader,
        options: tuple[Keeping, Bounds],
        connection: Connection,
        limits: Limits,
    ) -> None:
        self._header = header
        self._keeping, bounds = options
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._link = Link(connection.connector(limits), lambda _: None)
        path = spill_directory() / f"{header.run}.spill"
        self._outbox = Outbox(path, header, limits, wake=self._wake)
        self._delivery = Delivery(
            self._link, self._outbox, limits, lease_seconds=limits.lease_seconds, notice=self._note
        )
        self._watch = Watch(self._outbox, bounds)
        self._program = Program(command, self._keeping.environment(), self._watch, limits)
        self._ended_for: tuple[StreamState, Reason] | None = None
        """Why we stopped the command, when we did."""
        self._impatient = asyncio.Event()

    async def run(self) -> int:
        """The exit code of the command; raises `_NotStartedError`."""
        self._note(self._page(self._header.stream))
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # where nothing can be kept, the command runs all the same
                stack.enter_context(spill_lock(self._outbox.path))
            try:
                self._program.start()
            except OSError as error:
                raise _NotStartedError(error) from error
            self._forward_signals()
            outcome = await self._attend()
            self._leave()
        return outcome.status

    async def _attend(self) -> Outcome:
        """Until the command has ended and its output is delivered, or has waited for that long enough."""
        left = deliver_left(self._link, self._header.server, self._limits)
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._guarded(self._link.run()), name="connection"),
                group.create_task(self._stop_when_asked(), name="cancel"),
                group.create_task(self._stop_when_late(), name="timeout"),
                group.create_task(self._guarded(left), name="left"),
            ]
            delivered = group.create_task(self._guarded(self._delivery.run()), name="delivery")
            held = group.create_task(self._tell_when_held(), name="held")
            outcome = await self._program.wait()
            held.cancel()
            state, reason = self._verdict(outcome)
            self._outbox.finish(state, msgspec.json.encode(reason))
            await self._wait_for(delivered)
            self._link.stop()
            for helper in (delivered, *helpers[1:]):
                helper.cancel()
        return outcome

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        """Nothing that goes wrong on the way to the server may fail the command: it is told, and the output kept."""
        try:
            await work
        except Exception as failure:  # noqa: BLE001 - the top of a task whose failure must not reach the command
            error = first_error(failure)
            code = error.code if isinstance(error, UnbrokenError) else "internal"
            self._note(f"error[{code}]: {str(error) or type(error).__name__}; the output is kept here")

    async def _tell_when_held(self) -> None:
        """Whoever waits for a command that has ended learns what for."""
        await self._program.exited()
        await asyncio.sleep(max(self._limits.run_grace_seconds, HELD_SECONDS_MIN))
        self._note("the command has ended, and something that it left behind holds its output open: that is waited for")
        self._note("cure: interrupt, or `--idle-timeout`; a background process is to redirect its output")

    async def _stop_when_asked(self) -> None:
        await self._delivery.cancel_requested.wait()
        name = self._delivery.cancelled_by
        await self._stop(StreamState.CANCELLED, {"by": name} if name else {}, f"asked to stop{clean(by_whom(name))}")

    async def _stop_when_late(self) -> None:
        reason = await self._watch.expired()
        silent = "without output" if reason["limit"] == "idle" else "over"
        await self._stop(StreamState.TIMED_OUT, reason, f"timed out: {reason['seconds']:g} s {silent}")

    async def _stop(self, state: StreamState, reason: Reason, words: str) -> None:
        """Stop the command for a reason of ours; the first one counts, and none when it has ended by itself."""
        if self._ended_for is None and not self._program.ended:
            self._ended_for = state, reason
            self._note(words)
        await self._program.stop()

    async def _wait_for(self, delivered: asyncio.Task[None]) -> None:
        """Wait for the delivery, but not for ever, and not against the will of whoever sends a signal."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._keeping.wait), asyncio.TaskGroup() as group:
                stop = group.create_task(self._impatient.wait(), name="impatience")
                delivered.add_done_callback(lambda _: stop.cancel())

    def _verdict(self, outcome: Outcome) -> tuple[StreamState, Reason]:
        if self._ended_for is None:
            return (StreamState.COMPLETED if outcome.exit_code == 0 else StreamState.FAILED), {**outcome.reason}
        state, reason = self._ended_for
        return state, reason if state is StreamState.TIMED_OUT else {**reason, **outcome.reason}

    def _forward_signals(self) -> None:
        """Pass signals on; those that this process was told to ignore, the command ignores too."""
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: int) -> None:
        ended = self._program.ended
        if number == signal.SIGCONT:
            self._watch.heard()
        self._program.signal(number)
        if ended and number in {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}:
            self._program.leave()
            self._impatient.set()

    def _leave(self) -> None:
        """Say what was lost and what still waits."""
        outbox = self._outbox
        if not outbox.delivered and outbox.save():
            self._note(f"{human_bytes(outbox.waiting_bytes)} of output are not delivered; they are in {outbox.path}")
            self._note("cure: `unbroken deliver` when the server is there; the next `unbroken run` tries it too")
        elif not outbox.delivered:
            note(f"output is lost: it was not delivered and could not be kept ({outbox.trouble})")
        if outbox.dropped_bytes:
            why = outbox.trouble or f"more than {human_bytes(self._limits.spill_bytes_max)} waited"
            note(f"{human_bytes(outbox.dropped_bytes)} of output were not kept: {why}")
        outbox.close()

    def _wake(self) -> None:
        """Called by the thread that reads the command."""
        self._loop.call_soon_threadsafe(self._delivery.wake)

    def _page(self, stream: str) -> str:
        return f"{self._header.server.rstrip('/')}/#/stream/{quote(stream, safe='/')}"

    def _note(self, text: str) -> None:
        if not self._keeping.quiet:
            note(text)


def _nameable(program: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", program)[:64].strip(".") or "command"


def _not_started(error: OSError) -> int:
    """As shells do it."""
    sys.stderr.write(
        f"error[command]: {error.strerror}: {clean(str(error.filename))}\ncure: check the command's name and rights\n"
    )
    return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
