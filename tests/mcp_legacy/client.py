"""A host of the old SDK, run by its own Python: `client.py COMMAND ARGUMENT…` starts a server, `client.py URL` calls one.

It starts the task `count`, reads its stream to the end, and prints what it saw as JSON. It imports nothing of ours.
"""

import asyncio
import importlib.metadata
import json
import os
import sys
from contextlib import asynccontextmanager

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


@asynccontextmanager
async def connected(target):
    if target[0].startswith("http"):
        async with streamablehttp_client(target[0]) as (read, write, _):
            yield read, write
    else:
        parameters = StdioServerParameters(command=target[0], args=target[1:], env=dict(os.environ))
        async with stdio_client(parameters) as (read, write):
            yield read, write


async def called(session, name, **arguments):
    result = await session.call_tool(name, arguments)
    assert not result.isError, result
    return json.loads(result.content[0].text)


async def main(target):
    async with connected(target) as (read, write), ClientSession(read, write) as session:
        version = (await session.initialize()).protocolVersion
        begun = await called(session, "start_task", task="count", arguments={"upto": 20, "pause": 0.01})
        messages, done, cursor = [], False, begun["cursor"]
        while not done:
            page = await called(session, "read_stream", stream=begun["stream"], after=cursor, wait_ms=20_000)
            messages += page["messages"]
            done, cursor = page["done"], page["cursor"]
        view = await called(session, "get_task", stream=begun["stream"])
    sdk = importlib.metadata.version("mcp")
    told = {"sdk": sdk, "protocol": version, "messages": messages, "state": view["state"], "task": view}
    print(json.dumps(told))


asyncio.run(main(sys.argv[1:]))
