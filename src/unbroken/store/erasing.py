"""What is left of messages that were erased: their leaves, so that the hash chain holds, and nothing by which to guess them.

Stores rewrite their batches and forget salts with it. Pure: which rows those are, and that the old bytes are gone, is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from unbroken.errors import ErasedError
from unbroken.messages import Seq, StreamId, StreamInfo, decode_message, join_encoded, split_encoded
from unbroken.protocol.chain import HASH_BYTES, erased, is_erased, links
from unbroken.protocol.salts import Salts
from unbroken.store.base import Batch
from unbroken.store.entry import Entry

__all__ = ["check_erased", "erased_batch", "punctured"]

SEQ_MAX = (1 << 32) - 1


class _Forks(Protocol):
    def forks(self, stream: StreamId) -> Sequence[Entry]: ...


def check_erased(info: StreamInfo) -> None:
    """`ErasedError` where what the stream held was erased."""
    if info.erased is not None:
        said = msgspec.json.decode(info.erased)
        raise ErasedError(f"what {info.name!r} held was erased", stream=info.name, by=said["by"], at=said["at"])


def erased_batch(batch: Batch, salts: Salts) -> Batch:
    """`batch` with what stands in the place of its messages; hash and marks are as they were."""
    messages = split_encoded(batch.body)
    _, leaves = links(bytes(HASH_BYTES), batch.first, messages, salts)
    return replace(
        batch, body=join_encoded([_stub(message, leaf) for message, leaf in zip(messages, leaves, strict=True)])
    )


def _stub(message: bytes, leaf: bytes) -> bytes:
    if is_erased(message):
        return message
    known = decode_message(message)
    return erased(leaf, known.time, continues=known.continues)


def punctured(tables: _Forks, entry: Entry) -> Iterator[tuple[Entry, bytes]]:
    """The salts that the stream and its forks may keep when its own messages are erased: none of those.

    What is no younger than what it is said to branch off from shares nothing with it.
    """
    first = Seq(entry.fixed.fork_seq + 1)
    yield entry, entry.salts.without(first, SEQ_MAX).encoded
    waiting = [(entry, entry.head)]
    while waiting:
        source, last = waiting.pop()
        for fork in tables.forks(source.fixed.id):
            shared = Seq(min(fork.fixed.fork_seq, last))
            if shared >= first and fork.fixed.id > source.fixed.id:
                yield fork, fork.salts.without(first, shared).encoded
                waiting.append((fork, shared))
