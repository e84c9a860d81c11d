"""What an execution may say and ask while it runs: progress, logs, checkpoints, files, questions, and its own end.

The supervisor makes one for each execution and hands it to the runnable. Everything said goes into the run's stream, in
order, through the same bounded buffer as what the execution yields.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from unbroken.errors import InvalidError, TooLargeError
from unbroken.limits import Limits
from unbroken.messages import NewMessage, StreamInfo, StreamState
from unbroken.runs.files import FileReference, NewFile
from unbroken.runs.history import History
from unbroken.runs.items import as_messages
from unbroken.runs.spec import INPUT_ID_CHARACTERS_MAX, RunSpec

__all__ = ["Outlet", "RunContext", "RunEnded"]

LEVELS: Final = ("debug", "info", "warning", "error")


class RunEnded(Exception):  # noqa: N818 - an end is not an error
    """Raised by an execution to end its run in `state`, with `body` as its last message and `reason` for the stream."""

    def __init__(
        self,
        state: StreamState,
        body: Mapping[str, object] | None = None,
        *,
        reason: Mapping[str, object] | None = None,
        retryable: bool = False,
        after_seconds: float = 0.0,
    ) -> None:
        super().__init__(state.value)
        self.state = state
        self.body = dict(body or {})
        self.reason = dict(self.body if reason is None else reason)
        self.retryable = retryable
        """Whether another execution may succeed, and has no second effect: then the declared retries apply."""
        self.after_seconds = after_seconds
        """The shortest pause before it, when somebody asked for one."""


class Outlet(Protocol):
    """Where a context's messages go: one execution of a run."""

    async def put(self, message: NewMessage) -> None:
        """Add a message; waits while the buffer is full."""
        ...

    def note_progress(self, body: Mapping[str, object]) -> None:
        """Keep the newest progress, to be stored soon; never waits."""
        ...

    async def durable(self) -> None:
        """Wait until everything put so far is durable."""
        ...

    async def keep(self, file: NewFile) -> FileReference:
        """Store a file durably beside the run."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin `work` as a task of the run."""
        ...

    async def answer(self, key: str) -> msgspec.Raw:
        """Wait for the answer to the question `key`; it may come from any process."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """Inside the block silence does not count, because the execution waits for its turn."""
        ...


class RunContext:
    """One execution of one run.

    `attempt` counts the executions from 1. `checkpoint_state` is what `checkpoint` was last given, None at first: after a
    crash the execution begins there. `cancelled` says that the end was asked for; code in a thread looks at it itself.
    """

    def __init__(self, stream: StreamInfo, spec: RunSpec, history: History, outlet: Outlet, limits: Limits) -> None:
        self.stream = stream
        self.spec = spec
        self.attempt = history.started + 1
        self.history = history
        self.limits = limits
        self.cancelled = False
        self.ending: StreamState | None = None
        """With `cancelled`: the state in which the run ends; None when another worker goes on with it."""
        self._outlet = outlet
        self._asked = 0

    @property
    def checkpoint_state(self) -> Any:
        """The state that the last checkpoint stored, decoded; None when there is none."""
        raw = self.history.checkpoint
        return None if raw is None else msgspec.json.decode(raw)

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the work is. Only the newest of many in a short time is kept; it is not waited for."""
        self.note_progress(done, total, message)

    def note_progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """As `progress`, for callbacks that cannot wait."""
        body: dict[str, object] = {"progress": done}
        if total is not None:
            body["total"] = total
        if message:
            body["message"] = message[: self.limits.run_log_bytes_max]
        self._outlet.note_progress(body)

    async def log(self, text: str, level: Literal["debug", "info", "warning", "error"] = "info") -> None:
        """Keep a line of the run's log; cut at `run_log_bytes_max`."""
        if level not in LEVELS:
            raise InvalidError(f"a level is one of {', '.join(LEVELS)}", field="level")
        await self.put("log", {"level": level, "text": text[: self.limits.run_log_bytes_max]})

    async def checkpoint(self, state: object) -> None:
        """Store `state`, any JSON value, from which the work goes on after a crash; durable when it returns.

        Everything yielded before is durable with it. What is yielded after it, and was stored before a crash, is not
        stored again: between two checkpoints a continued execution yields the same messages once more.
        """
        encoded = msgspec.json.encode(state)
        most = self.limits.run_checkpoint_bytes_max
        if len(encoded) > most:
            raise TooLargeError(f"a checkpoint has at most {most} bytes", limit="run_checkpoint_bytes_max")
        await self.put("checkpoint", {"state": msgspec.Raw(encoded)})
        await self.durable()

    async def file(self, content: bytes | Path, name: str = "", media_type: str = "") -> FileReference:
        """Store bytes, or the file at a path, as a result; a message of the kind `file` refers to it.

        The file is durable, whole, before anybody is told of it. The same name and bytes in one run are one file, also when
        an execution goes on after a crash. `name` is the path's last part by default, `media_type` is guessed from it. Raises
        `InvalidError` for what cannot be read, `TooLargeError` beyond `run_file_bytes_max` and `run_files_max`. Cancelled, it
        leaves nothing behind.
        """
        if len(self.history.files) >= self.limits.run_files_max:
            raise TooLargeError(f"a run has at most {self.limits.run_files_max} files", limit="run_files_max")
        kept = await self._outlet.keep(NewFile.of(content, name, media_type))
        if kept.stream not in self.history.files:
            await self.put("file", msgspec.structs.asdict(kept))
        return kept

    async def ask(self, request: Mapping[str, object], *, id: str | None = None) -> object:
        """Ask whoever watches, and wait for the answer, across reloads and restarts.

        `request` is shown as it is: `message`, and `schema`, the JSON Schema of the answer. The same question (by `id`, or by
        its place among the questions of an execution) is asked once, also by an execution that goes on after a crash.
        `InvalidError` for an `id` that is too long.
        """
        self._asked += 1
        key = id or f"question-{self._asked}"
        if len(key) > INPUT_ID_CHARACTERS_MAX:
            raise InvalidError(f"an id has 1 to {INPUT_ID_CHARACTERS_MAX} characters", field="id")
        if key not in self.history.asked:
            await self.put("input_required", {**request, "id": key})
            await self.durable()
        answer = self.history.answered.get(key)
        if answer is None:
            answer = await self._outlet.answer(key)
        return msgspec.json.decode(answer, type=_Answer).response

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do `work` beside the execution, as a task that is cancelled at the end of the run at the latest.

        An async generator has no task group of its own. What `work` raises ends the run.
        """
        return self._outlet.spawn(work)

    async def put(self, kind: str, body: Mapping[str, object]) -> None:
        """Add a message of this kind with `body` as JSON."""
        await self._outlet.put(NewMessage(kind=kind, json=msgspec.Raw(msgspec.json.encode(body))))

    async def put_text(self, kind: str, text: str) -> None:
        """Add `text` as a message of this kind, or as several when it is too large for one."""
        for message in as_messages(text, self.limits):
            await self._outlet.put(msgspec.structs.replace(message, kind=kind))

    async def durable(self) -> None:
        """Wait until everything said so far is durable."""
        await self._outlet.durable()

    def waiting(self) -> AbstractContextManager[None]:
        """Inside the block silence does not count, because the execution waits for its turn."""
        return self._outlet.waiting()


class _Answer(msgspec.Struct, frozen=True):
    response: object = None
