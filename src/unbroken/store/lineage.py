"""Which stream the messages of a fork begin in, through all the forks between.

`Streams.verify` asks for it, because a chain begins with the name of that stream. It reads rows of streams and no messages.
"""

from __future__ import annotations

from unbroken.messages import StreamInfo
from unbroken.protocol.chain import genesis
from unbroken.store.base import StreamingMessageRepository

__all__ = ["genesis_of"]


async def genesis_of(store: StreamingMessageRepository, stream: StreamInfo) -> bytes | None:
    """What the chain of `stream` must begin with; None where what it was forked from is not there, or is younger than it."""
    while stream.forked_from is not None:
        source = await store.get_by_id(stream.forked_from)
        if source is None or source.id >= stream.id:
            return None
        stream = source
    return genesis(stream.tenant, stream.name, stream.epoch)
