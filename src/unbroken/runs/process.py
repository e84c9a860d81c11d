"""Functions that block, in a process of their own: a cancel kills it, whatever it is doing.

`runs.task` calls `in_process`, which starts this module as a program; `main` is the other end. They speak in JSON lines: what
the child yields and asks comes on its stdout, answers go to its stdin. The task is found by its module and name.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

import msgspec

from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, StreamState
from unbroken.runs.context import RunContext, RunEnded
from unbroken.runs.environment import without_secrets
from unbroken.runs.files import FileReference
from unbroken.runs.items import Item, as_messages
from unbroken.runs.lifeline import end_with_parent

__all__ = ["ChildContext", "in_process", "main"]

STDERR_BYTES_MAX: Final = 16 * 1024


class _Order(msgspec.Struct):
    """The first line to the child."""

    task: str
    attempt: int
    arguments: msgspec.Raw
    checkpoint: msgspec.Raw


class _Said(msgspec.Struct, omit_defaults=True):
    """A line from the child: a message, something that it asks of the run, its result, or its failure."""

    message: NewMessage | None = None
    call: str = ""
    body: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


class _Reply(msgspec.Struct, omit_defaults=True):
    """A line to the child that has asked."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


async def in_process(place: str, context: RunContext) -> AsyncIterator[Item]:
    """What the task at `place` (module:name) yields in a process of its own; killed when the run leaves it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unbroken.runs.process", str(os.getpid())),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=2 * context.limits.message_bytes_max,
        env=without_secrets(os.environ),
        start_new_session=True,  # a process group of its own, which uvloop knows no other way to make
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    tail = bytearray()
    reading = context.spawn(_keep_tail(process.stderr, tail))
    try:
        checkpoint = context.history.checkpoint or msgspec.Raw(b"null")
        _send(process.stdin, _Order(place, context.attempt, context.spec.arguments, checkpoint))
        while line := await process.stdout.readline():
            said = msgspec.json.decode(line, type=_Said)
            if said.message is not None:
                yield said.message
            elif said.error:
                raise RunEnded(StreamState.FAILED, {"error": said.error}, retryable=True)
            elif said.call == "result":
                value = msgspec.json.decode(said.body)
                if value is None:
                    return
                raise RunEnded(StreamState.COMPLETED, {"value": value}, reason={})
            else:
                _send(process.stdin, await _carry_out(said, context))
        code = await process.wait()
        await asyncio.wait([reading], timeout=context.limits.run_grace_seconds)
        body = {"error": "ProcessEnded", "exit_code": code, "stderr": tail.decode(errors="replace")}
        raise RunEnded(StreamState.FAILED, body, reason={"error": "ProcessEnded", "exit_code": code}, retryable=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        reading.cancel()
        await process.wait()


def _send(pipe: asyncio.StreamWriter, value: _Order | _Reply) -> None:
    pipe.write(msgspec.json.encode(value) + b"\n")  # what is raw was made compact when it came in: no line feed


async def _carry_out(said: _Said, context: RunContext) -> _Reply:
    body = msgspec.json.decode(said.body)
    result: object = None
    try:
        match said.call:
            case "progress":
                context.note_progress(*body)
            case "log":
                await context.log(*body)
            case "checkpoint":
                await context.checkpoint(body)
            case "file":
                result = await context.file(Path(body[0]), body[1], body[2])
            case _:
                result = await context.ask(body[0], id=body[1])
    except Exception as error:  # noqa: BLE001 - it is the child's
        return _Reply(error=f"{type(error).__name__}: {error}")
    return _Reply(result=msgspec.Raw(msgspec.json.encode(result)))


async def _keep_tail(stderr: asyncio.StreamReader, tail: bytearray) -> None:
    while data := await stderr.read(64 * 1024):
        tail += data
        del tail[:-STDERR_BYTES_MAX]


# --- the other end ----------------------------------------------------------------------------------------------------


class ChildContext:
    """The context of a task in its own process: what `BlockingContext` offers, over its pipes."""

    cancelled = False
    """A cancel kills the process, so it never sees one."""

    def __init__(self, order: _Order, replies: IO[bytes], out: IO[bytes]) -> None:
        self.attempt = order.attempt
        self.checkpoint_state: object = msgspec.json.decode(order.checkpoint)
        self._replies = replies
        self._out = out

    def say(self, said: _Said) -> None:
        """Write one line."""
        self._out.write(msgspec.json.encode(said) + b"\n")
        self._out.flush()

    def _call(self, name: str, body: object) -> object:
        self.say(_Said(call=name, body=msgspec.Raw(msgspec.json.encode(body))))
        reply = msgspec.json.decode(self._replies.readline(), type=_Reply)
        if reply.error:
            raise RuntimeError(reply.error)
        return msgspec.json.decode(reply.result)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """As `RunContext.progress`."""
        self._call("progress", [done, total, message])

    def log(self, text: str, level: Literal["debug", "info", "warning", "error"] = "info") -> None:
        """As `RunContext.log`."""
        self._call("log", [text, level])

    def checkpoint(self, state: object) -> None:
        """As `RunContext.checkpoint`."""
        self._call("checkpoint", state)

    def file(self, content: bytes | Path, name: str = "", media_type: str = "") -> FileReference:
        """As `RunContext.file`; bytes go by way of a temporary file."""
        if isinstance(content, Path):
            path = str(content.absolute())
            return msgspec.convert(self._call("file", [path, name or content.name, media_type]), FileReference)
        with tempfile.NamedTemporaryFile(prefix="unbroken-") as file:
            file.write(content)
            file.flush()
            return msgspec.convert(self._call("file", [file.name, name, media_type]), FileReference)

    def ask(self, request: Mapping[str, object], *, id: str | None = None) -> object:
        """As `RunContext.ask`."""
        return self._call("ask", [request, id])


def main() -> None:
    """One execution, for the parent whose id is the argument: the order on stdin, lines on stdout. Prints go to stderr."""
    end_with_parent(int(sys.argv[1]))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Order)
    context = ChildContext(order, sys.stdin.buffer, out)
    module, _, name = order.task.partition(":")
    found: Any = getattr(import_module(module), name)
    try:
        called: Any = found.call(context, found.check(order.arguments))
        if inspect.isgenerator(called):
            for item in cast("Iterator[Item]", called):
                for message in as_messages(item, DEFAULT_LIMITS):
                    context.say(_Said(message=message))
            called = None
        context.say(_Said(call="result", body=msgspec.Raw(msgspec.json.encode(called))))
    except Exception as error:  # noqa: BLE001 - the top of a process: told to the run, and in full on stderr
        sys.excepthook(type(error), error, error.__traceback__)
        context.say(_Said(error=type(error).__name__))


if __name__ == "__main__":
    main()
