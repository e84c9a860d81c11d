"""`SyncRuns`: what `SyncClient.runs` is, call for call what `ClientRuns` is to `Client`.

`SyncClient` makes it and lends it its way into the event loop. It decides nothing of its own.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from unbroken.client.runs import DEFAULT, ClientRuns, RunOptions
from unbroken.client.values import Json
from unbroken.protocol.frames import StreamView
from unbroken.runs.spec import RunSummary, SourceView

__all__ = ["Call", "SyncRuns"]

T = TypeVar("T")


class Call(Protocol):
    """Does a coroutine's work in the client's event loop, and waits for it."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


class SyncRuns:
    """Blocking calls with the promises of `ClientRuns`; may be shared between threads."""

    def __init__(self, call: Call, runs: ClientRuns) -> None:
        self._call = call
        self._runs = runs

    def task(self, name: str, arguments: Mapping[str, Json] | None = None, options: RunOptions = DEFAULT) -> StreamView:
        """Start a task; see `ClientRuns.task`."""
        return self._call(self._runs.task(name, arguments, options))

    def tool(
        self, server: str, name: str, arguments: Mapping[str, Json] | None = None, options: RunOptions = DEFAULT
    ) -> StreamView:
        """Call a tool of an MCP server; see `ClientRuns.tool`."""
        return self._call(self._runs.tool(server, name, arguments, options))

    def program(self, name: str, options: RunOptions = DEFAULT) -> StreamView:
        """Start a program that the server's operator has named; see `ClientRuns.program`."""
        return self._call(self._runs.program(name, options))

    def summary(self, stream: str) -> RunSummary:
        """The run in short; see `ClientRuns.summary`."""
        return self._call(self._runs.summary(stream))

    def retry(self, stream: str) -> StreamView:
        """The same work once more as a run of its own; see `ClientRuns.retry`."""
        return self._call(self._runs.retry(stream))

    def answer(self, stream: str, question: str, response: Json) -> int:
        """Answer what the run has asked; see `ClientRuns.answer`."""
        return self._call(self._runs.answer(stream, question, response))

    def available(self) -> list[SourceView]:
        """What there is to run, by source."""
        return self._call(self._runs.available())
