"""What can be run here: tasks, MCP tools and programs, each offered by a source of its kind.

The desk looks up what a client wants to start, the supervisor what it is to execute. A catalog is put together once, by the
composition root; nobody but the operator decides what is in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from unbroken.errors import UnknownRunnableError
from unbroken.runs.context import RunContext
from unbroken.runs.history import History
from unbroken.runs.items import Item
from unbroken.runs.spec import RunSpec, RunType, SourceView

__all__ = ["Catalog", "Recovery", "Runnable", "Source"]


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a run whose execution broke off: it goes on (`resume`), or ends as interrupted with `reason`."""

    resume: bool
    may_have_run: bool = False
    cause: str = "worker_lost"


class Runnable(Protocol):
    """Something that can be run. It is found anew for each execution and holds nothing between them."""

    idle_seconds: float | None
    """How long it may be silent; None: for ever."""
    total_seconds: float | None
    retries: int
    """How often an execution that failed by an exception is repeated."""
    retry_seconds: float
    """The pause before the first repetition; it doubles with each one."""

    def recover(self, history: History) -> Recovery:
        """What to do after a crash; pure."""
        ...

    def execute(self, context: RunContext) -> AsyncIterator[Item]:
        """One execution. It ends the run as completed by ending, as it says by raising `RunEnded`, else as failed.

        On cancellation it stops what it began, within `run_grace_seconds`.
        """
        ...


class Source(Protocol):
    """Runnables of one type (and of one server)."""

    @property
    def type(self) -> RunType: ...

    @property
    def server(self) -> str: ...

    async def find(self, spec: RunSpec) -> Runnable:
        """The runnable that `spec` names, its arguments checked as far as that can be done without executing it.

        Raises `UnknownRunnableError` for what is not there, `InvalidError` for arguments that do not fit.
        """
        ...

    async def view(self) -> SourceView:
        """What it offers now; never raises for a server that is away, and is bounded in time."""
        ...

    async def close(self) -> None:
        """Let go of what is held between executions; idempotent."""
        ...


class Catalog:
    """All sources of one server."""

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self.sources = tuple(sources)

    async def find(self, spec: RunSpec) -> Runnable:
        """As `Source.find`, from the source that has the type and server of `spec`."""
        for source in self.sources:
            if (source.type, source.server) == (spec.type, spec.server):
                return await source.find(spec)
        what = f"MCP server {spec.server!r}" if spec.server else f"{spec.type} {spec.name!r}"
        raise UnknownRunnableError(f"there is no {what} here")

    async def close(self) -> None:
        """Close every source."""
        for source in self.sources:
            await source.close()
