"""Owns an adapter that is a program: JSON lines in, JSON lines out, in front of the small log server.

The tests of `--command` start it. It is what an adapter in any language does, and it can start and kill its server too.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from ssl import create_default_context
from typing import Any

from unbroken.testing.survival import Complete, Delivery, Ended, LostError, RefusedError
from unbroken.testing.survival.adapters.sse import SseAdapter
from unbroken.testing.survival.process import CommandLauncher
from unbroken.testing.survival.secure import Secure

SERVER = f"{sys.executable} -m tests.support.log_server --port {{port}} --directory {{directory}}"
CAPABILITIES = ["resume", "idempotent_append", "durable_ack", "many_observers", "terminal_event", "delete", "restart"]


def say(number: int, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"id": number, **fields}) + "\n")
    sys.stdout.flush()


def shown(delivery: Delivery) -> dict[str, Any]:
    return {"payload": delivery.payload, "cursor": delivery.cursor, "position": delivery.position}


Adapters = Callable[[dict[str, Any]], Awaitable[SseAdapter]]


async def answer(request: dict[str, Any], launcher: CommandLauncher, adapters: Adapters) -> None:
    """Do what one line asks, and say what came of it."""
    number, verb, stream = request["id"], request["verb"], request.get("stream", "")
    match verb:
        case "capabilities":
            say(number, ok=True, capabilities=CAPABILITIES)
        case "start":
            await launcher.start(request["port"], Path(request["directory"]))
            say(number, ok=True)
        case "stop":
            await launcher.stop(signal.Signals[request["signal"]])
            say(number, ok=True)
        case _:
            try:
                await carry_out(await adapters(request), request, number, stream)
            except RefusedError as error:
                say(number, refused=str(error))
            except LostError as error:
                say(number, lost=str(error))


async def carry_out(adapter: SseAdapter, request: dict[str, Any], number: int, stream: str) -> None:
    match request["verb"]:
        case "create":
            await adapter.create(stream)
        case "append":
            numbers = {"producer": request["producer"], "number": request["number"]}
            say(number, ok=True, position=await adapter.append(stream, request["payload"], **numbers))
            return
        case "subscribe":
            async for item in adapter.subscribe(stream, request["cursor"]):
                if isinstance(item, Ended):
                    say(number, ended=item.state)
                    return
                say(number, message=shown(item))
            raise LostError("the response ended")
        case "read_all":
            complete: Complete = await adapter.read_all(stream)
            say(number, ok=True, state=complete.state, messages=[shown(item) for item in complete.deliveries])
            return
        case "end":
            await adapter.end(stream)
        case "delete":
            await adapter.delete(stream)
    say(number, ok=True)


async def main() -> None:
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    launcher = CommandLauncher(SERVER)
    tasks: dict[int, asyncio.Task[None]] = {}
    known: dict[str, SseAdapter] = {}
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:

        async def at(request: dict[str, Any]) -> SseAdapter:
            url = request["url"]
            if url not in known:
                adapter = SseAdapter(url)
                if "authority" in request:
                    ssl = create_default_context(cafile=request["ca_file"])
                    adapter.secure = Secure(request["authority"], ssl)
                known[url] = await stack.enter_async_context(adapter)
            return known[url]

        while line := await reader.readline():
            request = json.loads(line)
            if request["verb"] == "unsubscribe":
                if (task := tasks.pop(request["id"], None)) is not None:
                    task.cancel()
                continue
            task = group.create_task(answer(request, launcher, at))
            if request["verb"] == "subscribe":
                tasks[request["id"]] = task
        for task in tasks.values():
            task.cancel()
    await launcher.stop(signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main())
