"""A server that several tests use one after the other: emptied between them, because a start costs a second each.

Only tests whose every effect is a stream or a session share one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.canary import printed
from tests.support.server import ServerProcess
from unbroken import Client

__all__ = ["emptied", "lasting", "shared"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of a file, each of which finds it as good as new by `emptied`."""
    yield from lasting(ServerProcess(tmp_path_factory.mktemp("shared")))


def lasting(server: ServerProcess) -> Iterator[ServerProcess]:
    """`server`, running while the tests of a file do; in the end what it has printed is looked at, as of any server."""
    asyncio.run(server.start())
    yield server
    if server.running:
        asyncio.run(server.terminate())
    printed(server.output)


async def emptied(server: ServerProcess) -> ServerProcess:
    """`server`, running and without a stream or session: a test can tell it from a new one by epochs alone."""
    if not server.running:
        await server.start()
    async with Client(server.url) as client:
        while streams := (await client.list()).streams:
            for stream in streams:
                await client.delete(stream.stream)
        while sessions := (await client.sessions()).sessions:
            for session in sessions:
                await client.delete_session(session.session)
    return server
