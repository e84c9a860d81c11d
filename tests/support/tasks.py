"""Tasks that tests run: in this process, in a server's, in a worker's. Files tell across processes what happened."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from unbroken import RunContext, TaskOptions, task
from unbroken.messages import NewMessage
from unbroken.runs.blocking import BlockingContext


@task
async def count(run: RunContext, upto: int, pause: float = 0.0) -> AsyncIterator[str]:
    """Yield the numbers up to `upto`, each with a checkpoint behind it."""
    start = run.checkpoint_state or 0
    assert isinstance(start, int)
    for number in range(start + 1, upto + 1):
        await run.progress(number, upto, f"at {number}")
        yield f"{number}\n"
        if pause:
            await asyncio.sleep(pause)
        await run.checkpoint(number)


@task
async def plain(upto: int, pause: float = 0.0) -> AsyncIterator[str]:
    """Yield the numbers up to `upto`, without any checkpoint."""
    for number in range(1, upto + 1):
        yield f"{number}\n"
        await asyncio.sleep(pause)


@task
async def poisonous(run: RunContext) -> AsyncIterator[str]:
    """Yield one thing, and take down whoever executes it, at each execution."""
    if run.checkpoint_state is None:
        yield "begun"
    await run.checkpoint("here")
    os._exit(9)


@task
async def dying() -> None:
    """Take down whoever executes it before it has said anything."""
    os._exit(9)


@task(options=TaskOptions(resume="start"))
async def restartable(upto: int, pause: float = 0.0) -> AsyncIterator[str]:
    """As `plain`, but it may begin again."""
    for number in range(1, upto + 1):
        yield f"{number}\n"
        await asyncio.sleep(pause)


@task
async def add(left: int, right: int = 1) -> int:
    """The sum."""
    return left + right


@task
async def stuck(run: RunContext) -> AsyncIterator[str]:
    """Yield one thing and hang."""
    yield "begun"
    await asyncio.Event().wait()


@task
async def broken() -> AsyncIterator[str]:
    """Yield one thing and fail with a secret in the message."""
    yield "begun"
    raise ValueError("s3cret")


@task(options=TaskOptions(retries=3, retry_seconds=0.01, resume="start"))
async def flaky(run: RunContext, fails: int) -> AsyncIterator[str]:
    """Fail `fails` times, each time after one more message."""
    for number in range(1, 6):
        yield f"{number}\n"
        if run.attempt <= fails and number == run.attempt:
            raise ConnectionError("not now")


@task
async def curious(run: RunContext) -> str:
    """Ask, and give the answer as the result."""
    answer = await run.ask({"message": "Which colour?", "schema": {"type": "string"}})
    return f"you said {answer}"


@task
async def asking(run: RunContext, request: dict[str, Any], called: str = "") -> object:
    """Ask this."""
    return await run.ask(request, id=called or None)


@task
async def patient(run: RunContext) -> str:
    """As `curious`, and able to go on after a crash."""
    await run.checkpoint("begun")
    return f"you said {await run.ask({'message': 'Which colour?'}, id='colour')}"


@task
async def reporting(run: RunContext, lines: int, pause: float = 0.0, called: str = "report.csv") -> None:
    """Store a file, and another from a path; between them is a checkpoint."""
    await run.file("".join(f"{number},{number**2}\n" for number in range(lines)).encode(), called)
    await run.checkpoint("one")
    await asyncio.sleep(pause)
    await run.file(Path(__file__))


@task
async def reporting_twice(run: RunContext) -> None:
    """Store the same file twice, and others beside it."""
    for content, name in ((b"1", "a"), (b"1", "b"), (b"1", "a"), (b"11", "a")):
        await run.file(content, name)


@task(options=TaskOptions(resume="start"))
async def restartable_report(run: RunContext, bytes: int) -> None:
    """Store a large file, again from the start after a crash."""
    await run.file(b"0123456789" * (bytes // 10), "large.bin")


@task
def reporting_threaded(run: BlockingContext, lines: int) -> str:
    """As `reporting`, in a thread."""
    return run.file(b"1\n" * lines, "report.csv").stream


@task(options=TaskOptions(execution="process"))
def reporting_processed(run: Any, lines: int) -> str:
    """As `reporting`, in a process: from memory and from a path."""
    run.file(Path(__file__))
    return str(run.file(b"1\n" * lines, "report.csv").stream)


@task
def threaded(run: BlockingContext, upto: int) -> Iterator[str]:
    """As `count`, in a thread."""
    start = run.checkpoint_state or 0
    assert isinstance(start, int)
    for number in range(start + 1, upto + 1):
        yield f"{number}\n"
        run.progress(number, upto)
        run.checkpoint(number)


@task
def blocked(run: BlockingContext, marker: str) -> None:
    """Block a thread until the end is asked for, and say so in a file."""
    while not run.cancelled:
        time.sleep(0.01)
    Path(marker).write_text("noticed", encoding="utf-8")


@task(options=TaskOptions(execution="process"))
def surrounded() -> Iterator[Any]:
    """Tells which variables of ours its process has."""
    yield sorted(name for name in os.environ if name.upper().startswith("UNBROKEN_"))


@task(options=TaskOptions(execution="process"))
def processed(run: Any, upto: int) -> Iterator[Any]:
    """As `count`, in a process, with the process's id first."""
    sys.stdout.write("what it prints does no harm\n")
    start = run.checkpoint_state or 0
    if not start:
        yield {"pid": os.getpid()}
    for number in range(start + 1, upto + 1):
        run.progress(number, upto, "on it")
        run.log(f"line {number}")
        yield NewMessage(kind="text", text=f"{number}\n")
        run.checkpoint(number)


@task(options=TaskOptions(execution="process"))
def asleep(run: Any) -> Iterator[Any]:
    """Sleep in a way that nothing but a kill ends."""
    yield {"pid": os.getpid()}
    while True:
        time.sleep(60)


@task(options=TaskOptions(execution="process"))
def crashing() -> None:
    """Die without a word but on stderr."""
    os.write(2, b"out of luck\n")
    os._exit(7)


@task
async def exiting() -> AsyncIterator[str]:
    """Leave as a program would."""
    yield "begun"
    sys.exit(3)


@task
def exiting_thread() -> Iterator[str]:
    """As `exiting`, in a thread."""
    yield "begun"
    sys.exit(3)


class NoException(BaseException):
    """What panics of foreign code look like."""


@task
async def panicking() -> AsyncIterator[str]:
    """Raise what is no `Exception`."""
    yield "begun"
    raise NoException


@task(options=TaskOptions(resume="start"))
async def unspeakable() -> object:
    """Return what is no JSON value."""
    return object()


@task(options=TaskOptions(resume="start"))
async def unbearable(characters: int) -> str:
    """Return more than a message may hold."""
    return "x" * characters


async def _fail() -> None:
    raise ValueError("s3cret")


@task(options=TaskOptions(resume="start"))
async def failing_beside(run: RunContext) -> AsyncIterator[str]:
    """Fail in what it has begun beside itself."""
    yield "begun"
    run.spawn(_fail())
    await asyncio.Event().wait()


@task(options=TaskOptions(resume="start"))
async def unspeakable_progress(run: RunContext) -> AsyncIterator[str]:
    """Tell a progress that is no number."""
    yield "begun"
    await run.progress(object())  # type: ignore[arg-type]
    await asyncio.Event().wait()
