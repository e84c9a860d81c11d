"""A producer and a viewer in another process: both outlive every restart of the server.

Run it with `python examples/client.py http://127.0.0.1:4437` beside `unbroken serve`.
"""

from __future__ import annotations

import asyncio
import sys

from unbroken import Client


async def produce(client: Client, stream: str) -> None:
    """Append a hundred lines, each once, whatever happens to the connection; the lease tells that we are alive."""
    await client.create(stream)
    async with client.producer(stream, id="example", lease_seconds=10) as producer:
        for number in range(1, 101):
            await producer.send(f"line {number}\n")
        await producer.close()


async def watch(client: Client, stream: str) -> int:
    """Print what there is and what comes, each message once and in order, until the stream ends."""
    count = 0
    async for received in client.follow(stream):
        sys.stdout.write(received.text or "")
        count += 1
    return count


async def main(url: str, stream: str = "example/lines") -> int:
    """Do both at once."""
    async with Client(url) as client:
        await produce(client, stream)
        return await watch(client, stream)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
