"""Programs as runs: commands that the operator has named, and nobody else can choose.

The source that offers them, and what executes one: a child in a process group of its own, whose output becomes messages of
the kinds `stdout` and `stderr`. It is never given a command, an argument or a variable by a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from unbroken.errors import ConfigurationError, InvalidError, UnknownRunnableError
from unbroken.messages import UNREADABLE, NewMessage, StreamState
from unbroken.runs.catalog import Recovery
from unbroken.runs.context import RunContext, RunEnded
from unbroken.runs.environment import without_settings
from unbroken.runs.framing import Framer
from unbroken.runs.history import History
from unbroken.runs.items import Item
from unbroken.runs.lifeline import tied
from unbroken.runs.program import Outcome
from unbroken.runs.spec import RunnableView, RunSpec, RunType, SourceView

__all__ = ["ProgramSpec", "Programs", "load_programs"]

READ_BYTES = 64 * 1024
LOOK_SECONDS = 0.5
"""How often it is looked whether a silent program has ended."""


class ProgramSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command that may be run by its name. `env` is added to the server's own environment, without its `UNBROKEN_*`."""

    command: list[str]
    title: str = ""
    description: str = ""
    cwd: str | None = None
    env: dict[str, str] = {}
    idle_seconds: float | None = None
    total_seconds: float | None = None


class _File(msgspec.Struct, frozen=True):
    programs: dict[str, ProgramSpec]


def load_programs(path: Path) -> dict[str, ProgramSpec]:
    """The programs of a file `{"programs": {NAME: {"command": [...]}}}`; `ConfigurationError` says what is wrong with it."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File).programs
    except OSError as error:
        raise ConfigurationError(f"the programs file cannot be read: {error.strerror}", setting="programs") from None
    except UNREADABLE as error:
        raise ConfigurationError(f"the programs file is not as it should be: {error}", setting="programs") from None
    for name, program in found.items():
        if not program.command:
            raise ConfigurationError(f"the program {name!r} has an empty command", setting="programs")
    return found


class Programs:
    """The source that offers programs."""

    type: RunType = "program"
    server = ""

    def __init__(self, programs: Mapping[str, ProgramSpec]) -> None:
        self._programs = dict(programs)

    async def find(self, spec: RunSpec) -> ProgramRunnable:
        """As `Source.find`; a program takes no arguments."""
        found = self._programs.get(spec.name)
        if found is None:
            raise UnknownRunnableError(f"there is no program {spec.name!r} here")
        if msgspec.json.decode(spec.arguments):
            raise InvalidError("a program takes no arguments: its command is the operator's", field="arguments")
        return ProgramRunnable(found)

    async def view(self) -> SourceView:
        """As `Source.view`; the commands themselves are not shown."""
        return SourceView(
            type=self.type,
            runnables=tuple(
                RunnableView(type="program", name=name, title=program.title, description=program.description)
                for name, program in self._programs.items()
            ),
        )

    async def close(self) -> None:
        """Nothing is held."""


class ProgramRunnable:
    """One named command. What it did before a crash nobody can know: then its run is interrupted."""

    retries = 0
    retry_seconds = 0.0

    def __init__(self, program: ProgramSpec) -> None:
        self._program = program
        self.idle_seconds = program.idle_seconds
        self.total_seconds = program.total_seconds

    def recover(self, history: History) -> Recovery:
        """Never again by itself."""
        return Recovery(resume=False, may_have_run=history.started > 0)

    async def execute(self, context: RunContext) -> AsyncIterator[Item]:
        """Run the command; its exit code is the run's end. Cancelled, its group gets SIGTERM, then SIGKILL."""
        program = self._program
        environment = without_settings(os.environ) | program.env
        try:
            process = await asyncio.create_subprocess_exec(
                *await tied(program.command, environment=environment, cwd=program.cwd),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=program.cwd,
                env=environment,
                start_new_session=True,  # a process group of its own, which uvloop knows no other way to make
            )
        except OSError as error:
            raise RunEnded(StreamState.FAILED, {"error": "not started", "cause": error.strerror or ""}) from error
        try:
            async for message in _output(process, context):
                yield message
            code = await process.wait()
        finally:
            await _stop(process, context.limits.run_grace_seconds / 2)
        outcome = Outcome(exit_code=code) if code >= 0 else Outcome(signal=-code)
        state = StreamState.COMPLETED if code == 0 else StreamState.FAILED
        raise RunEnded(state, outcome.reason)


async def _output(process: asyncio.subprocess.Process, context: RunContext) -> AsyncIterator[NewMessage]:
    """Both outputs as messages, in the order in which they were read, none older than `run_flush_seconds`.

    What a program leaves behind may hold its pipes open: `run_grace_seconds` of silence after its end are the end of them.
    """
    framer = Framer(context.limits.run_message_bytes_max)
    pieces: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(maxsize=16)
    assert process.stdout is not None
    assert process.stderr is not None
    for kind, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
        context.spawn(_read(kind, pipe, pieces))
    open_pipes, silent = 2, 0.0
    while open_pipes and silent < context.limits.run_grace_seconds:
        pause = context.limits.run_flush_seconds if framer.pending else LOOK_SECONDS
        try:
            async with asyncio.timeout(pause):
                kind, data = await pieces.get()
        except TimeoutError:
            found = framer.flush()
            silent = 0.0 if process.returncode is None else silent + pause
        else:
            silent = 0.0
            open_pipes -= not data
            found = framer.feed(kind, data) if data else []
        for message in found:
            yield message
    for message in framer.finish():
        yield message


async def _read(kind: str, pipe: asyncio.StreamReader, pieces: asyncio.Queue[tuple[str, bytes]]) -> None:
    while data := await pipe.read(READ_BYTES):
        await pieces.put((kind, data))
    await pieces.put((kind, b""))


async def _stop(process: asyncio.subprocess.Process, grace_seconds: float) -> None:
    """End what is left of the process group."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
