"""Which stream the messages of a fork begin in, and that every walk through forks ends, whatever a database says.

`Streams.verify` asks for the one, because a chain begins with the name of that stream; whoever follows forks, up or down,
calls the other. It reads rows of streams and no messages.
"""

from __future__ import annotations

from unbroken.errors import CorruptError
from unbroken.messages import StreamInfo
from unbroken.protocol.chain import genesis
from unbroken.store.base import StreamingMessageRepository

__all__ = ["check_older", "genesis_of"]


def check_older(source: StreamInfo, fork: StreamInfo) -> None:
    """`CorruptError` unless `source` was there before `fork`, as a stream is that another branches off from."""
    if source.id >= fork.id:
        raise CorruptError(
            f"the fork {fork.id} cannot be one of {source.id}, which is no older", stream=fork.id, seq=fork.fork_seq
        )


async def genesis_of(store: StreamingMessageRepository, stream: StreamInfo) -> bytes | None:
    """What the chain of `stream` must begin with; None where what it was forked from is not there, or is younger than it."""
    while stream.forked_from is not None:
        source = await store.get_by_id(stream.forked_from)
        if source is None or source.id >= stream.id:
            return None
        stream = source
    return genesis(stream.tenant, stream.name, stream.epoch)
