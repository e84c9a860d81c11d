"""What the demonstration streams: an answer, word by word, a long task, and a small program.

Both forms of the demonstration play these. A scene knows a client and nothing of servers, viewers or faults.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from typing import Final

from unbroken.client import Client
from unbroken.messages import NewMessage

__all__ = ["PROGRAM", "Sent", "answer", "program", "program_command", "program_output", "task", "words"]

SESSION: Final = "demo"
PROGRAM: Final = """
import sys, time
for number in range({lines}):
    print(f"line {{number}} of a program that knows nothing of Unbroken", flush=True)
    if number % 10 == 9:
        print(f"warning {{number}}: standard error is kept apart", file=sys.stderr, flush=True)
    time.sleep({pause})
"""
TEXT: Final = """# This answer cannot be lost

You are reading a *stream*: every word was written to a database **before** you saw it. So you may

1. reload this page in the middle of a sentence,
2. open it in a second window, or on another device,
3. close it and come back when it is done,
4. take the network away and give it back,
5. kill the server with `kill -9` and start it again.

Each time the text goes on exactly where it was, with nothing missing and nothing twice. The program that writes these words
does not know whether anybody is watching, and nobody who leaves can stop it; only the *cancel* button can.

```python
async with Client("http://127.0.0.1:4437") as client:
    async for message in client.follow("demo/answer-1"):
        print(message.text, end="")
```

Each word is a message with a number: 1, 2, 3 and so on. A viewer holds the number of the last one that it has, and asks for
what follows it. That is all there is to it, and it holds over crashes because the numbers are stored with the words.
"""

Sent = Callable[[str, int, str], None]
"""Told of every acknowledged message: stream, seq, payload."""


def words(repeat: int) -> list[str]:
    """The answer in pieces like a language model's, the whole of it `repeat` times."""
    return re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", TEXT) * repeat


async def answer(client: Client, stream: str, *, pause: float, repeat: int = 1, sent: Sent | None = None) -> None:
    """A scripted answer of a language model, one word a message."""
    await client.create(stream, kind="answer", session=SESSION, metadata={"title": "An answer, word by word"})
    async with client.producer(stream, id=f"{stream}-model", lease_seconds=client.limits.lease_seconds) as producer:
        for word in words(repeat):
            if producer.cancel_requested.is_set():
                return
            appended = await producer.append(NewMessage(kind="token", text=word))
            if sent is not None:
                sent(stream, appended.last, word)
            await asyncio.sleep(pause)
        await producer.close("completed", {"words": len(words(repeat))})


async def task(client: Client, stream: str, *, steps: int, pause: float, sent: Sent | None = None) -> None:
    """A long task that tells of its progress."""
    await client.create(stream, kind="task", session=SESSION, metadata={"title": "A long task"})
    async with client.producer(stream, id=f"{stream}-worker", lease_seconds=client.limits.lease_seconds) as producer:
        for step in range(1, steps + 1):
            if producer.cancel_requested.is_set():
                return
            text = f"step {step} of {steps} done\n"
            appended = await producer.append(NewMessage(kind="progress", text=text))
            if sent is not None:
                sent(stream, appended.last, text)
            await asyncio.sleep(pause)
        await producer.close("completed", {"steps": steps})


def program_output(lines: int) -> str:
    """What the program writes to its standard output."""
    return "".join(f"line {number} of a program that knows nothing of Unbroken\n" for number in range(lines))


def program_command(server: str, stream: str, *, lines: int, pause: float) -> list[str]:
    """`unbroken run` around a small program."""
    script = PROGRAM.format(lines=lines, pause=pause)
    own = [
        sys.executable,
        "-m",
        "unbroken",
        "run",
        "--quiet",
        "--server",
        server,
        "--name",
        stream,
        "--session",
        SESSION,
    ]
    return [*own, "--", sys.executable, "-c", script]


async def program(server: str, stream: str, *, lines: int, pause: float) -> int:
    """A program run by `unbroken run`, to its end; its exit code. Cancelled, it is sent SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *program_command(server, stream, lines=lines, pause=pause),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("UNBROKEN_")},
        start_new_session=True,
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.shield(process.wait())
