"""Runs a command as a child in a process group of its own, passes its output on unchanged, and hands a copy to a sink.

`unbroken run` uses it. Reading and passing on happen in a thread of their own and wait for nothing but the child and our own
outputs; it knows no server and no stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from unbroken.limits import Limits

__all__ = ["FORWARDED", "Outcome", "Program", "Sink"]

FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
)
READ_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = select.PIPE_BUF
"""What a pipe takes without blocking once it says that it is writable."""


class Sink(Protocol):
    """Where the copy goes. All are called from one thread and never wait for a network."""

    @property
    def partial(self) -> bool: ...

    def output(self, kind: str, data: bytes) -> None: ...

    def flush(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: with an exit code, or by a signal."""

    exit_code: int | None = None
    signal: int | None = None

    @property
    def status(self) -> int:
        """The code with which a shell reports it."""
        return self.exit_code if self.exit_code is not None else 128 + (self.signal or 0)

    @property
    def reason(self) -> dict[str, int | str]:
        """Why the stream ended, for its terminal state."""
        if self.exit_code is not None:
            return {"exit_code": self.exit_code}
        try:
            return {"signal": signal.Signals(self.signal or 0).name}
        except ValueError:
            return {"signal": f"signal {self.signal}"}


class _Pipe:
    """One output of the child, ours that it goes to, and what ours has not taken yet."""

    def __init__(self, kind: str, source: int, destination: int) -> None:
        self.kind = kind
        self.source = source
        self.destination = destination
        self.waiting = memoryview(b"")
        self.ended = False

    def end(self) -> None:
        """Read no more: the child's next write gets what a write to a closed pipe gets."""
        if not self.ended:
            self.ended = True
            self.waiting = memoryview(b"")
            os.close(self.source)


class Program:
    """One run of a command. `start` it, then `wait`; `signal` and `stop` act on its process group.

    The child has `environment` and inherits stdin. When ours is the terminal's foreground group the child's becomes it,
    so that a Ctrl-C reaches the child once and us not at all; Ctrl-Z stops both.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], sink: Sink, limits: Limits) -> None:
        self._command = list(command)
        self._environment = environment
        self._sink = sink
        self._limits = limits
        self._pid = 0
        self._pipes: list[_Pipe] = []
        self._ended = threading.Event()
        self._leave = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        self._terminal = _foreground_terminal()

    def start(self) -> None:
        """Start the child; an `OSError` says why it could not be."""
        process = subprocess.Popen(  # noqa: S603 - running what it is told is its purpose
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self._environment,
            process_group=0,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self._pid = process.pid
        self._pipes = [
            _Pipe("stdout", _take_over(process.stdout.fileno()), sys.__stdout__.fileno() if sys.__stdout__ else 1),
            _Pipe("stderr", _take_over(process.stderr.fileno()), sys.__stderr__.fileno() if sys.__stderr__ else 2),
        ]
        process.stdout.close()
        process.stderr.close()
        process.returncode = 0  # `wait` reaps it; Popen must not
        self.signal(signal.SIGCONT)  # hands over the terminal; the child may have been stopped for reading before that

    async def wait(self) -> Outcome:
        """Until the child has ended and nobody holds its outputs any more (or `stop` or `leave` said not to wait).

        Every byte was then passed on and given to the sink.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(self._pump), name="program output")
            reaped = group.create_task(asyncio.to_thread(self._reap), name="program end")
        return reaped.result()

    def signal(self, number: int) -> None:
        """Send a signal to the child's group; without effect when nothing of it is left."""
        if number == signal.SIGCONT:
            self._hand_over_terminal()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    async def stop(self) -> None:
        """SIGTERM to the group, SIGKILL to what is left of it after the grace; then leave its outputs.

        A descendant that left the group and still holds the outputs keeps running and is not waited for.
        """
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not await asyncio.to_thread(self._ended.wait, self._limits.run_grace_seconds):
            self.signal(signal.SIGKILL)
            await asyncio.to_thread(self._ended.wait)
        self.signal(signal.SIGKILL)
        self.leave()

    def leave(self) -> None:
        """When the child has ended: do not wait for others that hold its outputs; what is in the pipes is still read."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._leave[1], b"x")

    async def exited(self) -> None:
        """Until the child has ended; others may still hold its outputs."""
        await asyncio.to_thread(self._ended.wait)

    @property
    def ended(self) -> bool:
        """Whether the child has ended (its descendants may live on)."""
        return self._ended.is_set()

    # --- the thread that reads ------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        flush_at: float | None = None
        leaving = False
        while any(not pipe.ended for pipe in self._pipes):
            timeout = None if flush_at is None else max(0.0, flush_at - time.monotonic())
            ready = self._wait(0 if leaving else timeout)
            if self._leave[0] in ready:
                os.read(self._leave[0], 16)
                leaving = True
            moved = [self._move(pipe, ready) for pipe in self._pipes if not pipe.ended]
            if leaving and not any(moved):
                break
            now = time.monotonic()
            if flush_at is not None and now >= flush_at:
                self._sink.flush()
                flush_at = None
            if flush_at is None and self._sink.partial:
                flush_at = now + self._limits.run_flush_seconds
        for pipe in self._pipes:
            pipe.end()

    def _wait(self, timeout: float | None) -> set[int]:
        """The descriptors that can be read, or written where something waits; `select` knows terminals on every system."""
        live = [pipe for pipe in self._pipes if not pipe.ended]
        reading = [pipe.source for pipe in live if not pipe.waiting]
        writing = {pipe.destination for pipe in live if pipe.waiting}
        readable, writable, _ = select.select([self._leave[0], *reading], writing, (), timeout)
        return {*readable, *writable}

    def _move(self, pipe: _Pipe, ready: set[int]) -> bool:
        """One step of one output, if it can be done without waiting; whether anything was done."""
        if pipe.waiting:
            if pipe.destination not in ready:
                return False
            self._write(pipe)
            return True
        if pipe.source not in ready:
            return False
        data = os.read(pipe.source, READ_BYTES)
        if not data:
            pipe.end()
            return True
        self._sink.output(pipe.kind, data)
        pipe.waiting = memoryview(data)
        return True

    @staticmethod
    def _write(pipe: _Pipe) -> None:
        try:
            count = os.write(pipe.destination, pipe.waiting[:WRITE_BYTES])
        except BlockingIOError:
            return
        except OSError:  # nobody reads our output any more: the child learns it as it would without us
            pipe.end()
            return
        pipe.waiting = pipe.waiting[count:]

    # --- the thread that waits ------------------------------------------------------------------------------------------

    def _reap(self) -> Outcome:
        while True:
            _, status = os.waitpid(self._pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                self._stop_along()
                continue
            self._take_back_terminal()
            self._ended.set()
            if os.WIFSIGNALED(status):
                return Outcome(signal=os.WTERMSIG(status))
            return Outcome(exit_code=os.WEXITSTATUS(status))

    def _stop_along(self) -> None:
        """The terminal stopped the child: give the terminal back and stop too. Continued, `signal` continues the child."""
        if self._terminal is not None:
            self._take_back_terminal()
            os.kill(0, signal.SIGTSTP)

    def _hand_over_terminal(self) -> None:
        """Make the child's group the terminal's foreground if ours is it."""
        if self._terminal is None or self._ended.is_set() or _foreground_terminal() is None:
            return
        with _without_terminal_stops(), contextlib.suppress(OSError):
            os.tcsetpgrp(self._terminal, self._pid)

    def _take_back_terminal(self) -> None:
        if self._terminal is not None:
            with _without_terminal_stops(), contextlib.suppress(OSError):
                os.tcsetpgrp(self._terminal, os.getpgrp())


def _foreground_terminal() -> int | None:
    """The descriptor of our terminal when our process group is its foreground, else None."""
    for descriptor in (0, 2, 1):
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                return descriptor
    return None


@contextlib.contextmanager
def _without_terminal_stops() -> Iterator[None]:
    """Changing the foreground group from the background stops a process that does not block this signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_over(descriptor: int) -> int:
    """A descriptor of our own for the same pipe."""
    return os.dup(descriptor)
