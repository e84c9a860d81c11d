"""Starting runs and answering them: what `Client` asks of the server's desk.

A start always carries a key, so that a request that was sent twice starts once. It never follows a run: that is `follow`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import msgspec

from unbroken.client.http import HttpFace, place
from unbroken.client.values import Json
from unbroken.protocol.frames import StreamView
from unbroken.runs.spec import RunOptions, RunSummary, SourceView

__all__ = ["ClientRuns", "RunOptions", "RunSummary"]


DEFAULT = RunOptions()


class _Sources(msgspec.Struct, frozen=True):
    sources: list[SourceView]


class _Answered(msgspec.Struct, frozen=True):
    seq: int


class ClientRuns:
    """`client.runs`: runs are started here, and then are streams like any other."""

    def __init__(self, face: HttpFace) -> None:
        self._face = face

    async def task(
        self, name: str, arguments: Mapping[str, Json] | None = None, options: RunOptions = DEFAULT
    ) -> StreamView:
        """Start a task; durable when it returns. Raises `UnknownRunnableError`, `InvalidError` for arguments that do not
        fit, `AlreadyExistsError` when the name or key belongs to other work.
        """
        return await self._start({"task": name}, arguments, options)

    async def tool(
        self, server: str, name: str, arguments: Mapping[str, Json] | None = None, options: RunOptions = DEFAULT
    ) -> StreamView:
        """Call a tool of an MCP server; as `task`."""
        return await self._start({"tool": name, "server": server}, arguments, options)

    async def program(self, name: str, options: RunOptions = DEFAULT) -> StreamView:
        """Start a program that the server's operator has named; as `task`."""
        return await self._start({"program": name}, None, options)

    async def _start(
        self, what: Mapping[str, str], arguments: Mapping[str, Json] | None, options: RunOptions
    ) -> StreamView:
        key = options.key if options.key or options.name else secrets.token_hex(16)
        given = {
            "name": options.name or None,
            "key": key or None,
            "session": options.session,
            "metadata": options.metadata,
            "ttl_seconds": options.ttl_seconds,
            "idle_seconds": options.idle_seconds,
            "total_seconds": options.total_seconds,
        }
        body = {
            **what,
            "arguments": arguments or {},
            **{name: value for name, value in given.items() if value is not None},
        }
        return await self._face.send("POST", "/v1/runs", StreamView, body)

    async def summary(self, stream: str) -> RunSummary:
        """The run in short: its state, the newest message of each kind that tells of it, and its open questions.

        Following from its `cursor` misses nothing. `NotFoundError` for a stream that is no run.
        """
        return await self._face.get(place("runs", stream), RunSummary)

    async def retry(self, stream: str) -> StreamView:
        """The same work once more as a run of its own; asked twice it is there once."""
        return await self._face.send("POST", place("retry", stream), StreamView)

    async def answer(self, stream: str, question: str, response: Json) -> int:
        """Answer what the run has asked; the seq of the answer. `AlreadyExistsError` when somebody was faster."""
        body = {"id": question, "response": response}
        return (await self._face.send("POST", place("answer", stream), _Answered, body)).seq

    async def available(self) -> list[SourceView]:
        """What there is to run, by source."""
        return (await self._face.get("/v1/runnables", _Sources)).sources
