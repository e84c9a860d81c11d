"""The adapter that is a program: JSON lines on its standard input and output, in any language.

The survival kit uses it for `--command PROGRAM`. One process serves every route to the server; its lines are described in
docs/howto/verify-server.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from unbroken.testing.survival.adapter import Adapter, Capability, Complete, Delivery, Ended, LostError, RefusedError

__all__ = ["Program", "ProgramAdapter"]

logger = logging.getLogger(__name__)

LINE_BYTES_MAX = 16 * 1024 * 1024
WAITING_MAX = 10_000
COMPLAINTS_MAX = 3
STOP_SECONDS = 10.0


class _Message(msgspec.Struct):
    payload: str
    cursor: str = ""
    position: int = 0


class _Answer(msgspec.Struct):
    """One line of the program: an outcome (`ok`, `refused`, `lost`), or a part of one (`message`, `ended`)."""

    id: int
    ok: bool = False
    refused: str | None = None
    lost: str | None = None
    message: _Message | None = None
    ended: str | None = None
    position: int = 0
    state: str = ""
    messages: list[_Message] = []
    capabilities: list[str] = []


class Program:
    """The running program; use it as an asynchronous context manager. At the end its input is closed, then it is killed."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._last = 0
        self._waiting: dict[int, asyncio.Queue[_Answer]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._group = asyncio.TaskGroup()
        self.capabilities: frozenset[Capability] = frozenset()
        self.restarts = False

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, limit=LINE_BYTES_MAX, start_new_session=True
        )
        await self._group.__aenter__()
        self._group.create_task(self._read(self._process))
        try:
            answer = await self.ask("capabilities")
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        known = {str(capability) for capability in Capability}
        self.capabilities = frozenset(Capability(name) for name in answer.capabilities if name in known)
        self.restarts = "restart" in answer.capabilities
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await self._group.__aexit__(None, None, None)

    def at(self, url: str, *, token: str | None = None) -> Adapter:
        """The adapter for one route."""
        return ProgramAdapter(self, url, token=token)

    # --- as a launcher -----------------------------------------------------------------------------------------------

    async def start(self, port: int, directory: Path) -> None:
        """Let the program start the server; it answers when the server listens."""
        await self.ask("start", port=port, directory=str(directory))

    async def stop(self, number: signal.Signals) -> None:
        """Let the program end the server with a signal; it answers when the server is gone."""
        await self.ask("stop", signal=number.name)

    # --- lines -------------------------------------------------------------------------------------------------------

    async def ask(self, verb: str, **fields: str | int | None) -> _Answer:
        """One request with one answer."""
        async with contextlib.aclosing(self.answers(verb, **fields)) as answers:
            async for answer in answers:
                return answer
        raise LostError("the program gave no answer")

    async def answers(self, verb: str, **fields: str | int | None) -> AsyncGenerator[_Answer, None]:
        """One request with everything that comes for it; leaving it early sends `unsubscribe`."""
        self._last += 1
        number = self._last
        queue: asyncio.Queue[_Answer] = asyncio.Queue(WAITING_MAX)
        self._waiting[number] = queue
        try:
            await self._send(id=number, verb=verb, **fields)
            while True:
                answer = await queue.get()
                if answer.refused is not None:
                    raise RefusedError(answer.refused)
                if answer.lost is not None:
                    raise LostError(answer.lost)
                yield answer
                if answer.message is None:
                    return
        finally:
            del self._waiting[number]
            if verb == "subscribe":
                with contextlib.suppress(LostError):
                    await self._send(id=number, verb="unsubscribe")

    async def _send(self, **fields: str | int | None) -> None:
        assert self._process is not None
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(
                msgspec.json.encode({name: value for name, value in fields.items() if value is not None}) + b"\n"
            )
            await stdin.drain()
        except (OSError, RuntimeError) as error:
            raise LostError(f"the program is gone: {error}") from error

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand each line to whoever waits for it; at the end nobody waits any longer."""
        assert process.stdout is not None
        wrong = 0
        while line := await process.stdout.readline():
            try:
                answer = msgspec.json.decode(line, type=_Answer)
            except msgspec.DecodeError as error:
                if wrong < COMPLAINTS_MAX:
                    logger.warning("the adapter wrote a line that is no answer (%s): %.200r", error, line)
                wrong += 1
                continue
            if (queue := self._waiting.get(answer.id)) is not None:
                await queue.put(answer)
        for number, queue in list(self._waiting.items()):
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(_Answer(number, lost="the program has ended"))


class ProgramAdapter(Adapter):
    """One route to the server, through the program."""

    def __init__(self, program: Program, url: str, *, token: str | None = None) -> None:
        super().__init__(url, token=token)
        self._program = program

    @property
    def _way(self) -> dict[str, str | None]:
        """What every line says of the way to the server."""
        way = {"url": self.url, "token": self.token}
        if self.secure is None:
            return way
        ca_file = self.secure.ca_file
        return way | {"authority": self.secure.authority, "ca_file": None if ca_file is None else str(ca_file)}

    async def create(self, stream: str) -> None:
        await self._ask("create", stream=stream)

    async def append(self, stream: str, payload: str, *, producer: str, number: int) -> int:
        answer = await self._ask("append", stream=stream, payload=payload, producer=producer, number=number)
        return answer.position

    async def subscribe(self, stream: str, cursor: str) -> AsyncGenerator[Delivery | Ended, None]:
        answers = self._program.answers("subscribe", **self._way, stream=stream, cursor=cursor)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                if answer.message is not None:
                    yield _delivery(answer.message)
                elif answer.ended is not None:
                    yield Ended(answer.ended)

    async def read_all(self, stream: str) -> Complete:
        answer = await self._ask("read_all", stream=stream)
        return Complete(tuple(map(_delivery, answer.messages)), answer.state)

    async def end(self, stream: str) -> None:
        await self._ask("end", stream=stream)

    async def delete(self, stream: str) -> None:
        await self._ask("delete", stream=stream)

    async def _ask(self, verb: str, **fields: str | int) -> _Answer:
        return await self._program.ask(verb, **self._way, **fields)


def _delivery(message: _Message) -> Delivery:
    return Delivery(message.payload, message.cursor, message.position)
