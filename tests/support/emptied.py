"""A server that several tests use one after the other: emptied between them, because a start costs a second each.

Only tests whose every effect is a stream or a session share one.
"""

from __future__ import annotations

from tests.support.server import ServerProcess
from unbroken import Client

__all__ = ["emptied"]


async def emptied(server: ServerProcess) -> ServerProcess:
    """`server`, running and without a stream or session: what a test cannot tell from a new one."""
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
