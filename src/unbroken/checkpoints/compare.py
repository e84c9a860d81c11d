"""Holds a stream that is stored against its checkpoints: what was cut off, written anew, or appended behind its end.

`unbroken verify` calls it for a stream whose own chain holds. It trusts the checkpoints it is given, whose signatures were
checked, and nothing that is stored beside the messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unbroken.checkpoints.checkpoint import Checkpoint
from unbroken.checkpoints.merkle import MerkleRange
from unbroken.messages import Seq, StreamInfo, split_encoded
from unbroken.protocol.chain import fold, links
from unbroken.protocol.salts import Salts
from unbroken.streams import Streams

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The stream is what its checkpoints say up to message `covered`; `reason` says what is wrong in `bad` to `bad_last`."""

    covered: int
    reason: str | None = None
    bad: int | None = None
    bad_last: int | None = None


async def compare(streams: Streams, stream: StreamInfo, checkpoints: Sequence[Checkpoint]) -> Comparison:
    """Recompute chain and tree of everything retained, and compare wherever there is a checkpoint.

    The checkpoints were read before `stream` was. Raises what reading raises.
    """
    walk = _Walk(stream, checkpoints)
    walk.start(await streams.store.hash_at(stream.id, Seq(stream.first - 1)))
    while walk.result is None and walk.seq < stream.head:
        found = await streams.read(stream, walk.seq)
        for batch in found.batches:
            walk.take(batch.first, split_encoded(batch.body))
        if not found.batches:
            break
    return walk.result or walk.end()


class _Walk:
    """Goes from checkpoint to checkpoint."""

    def __init__(self, stream: StreamInfo, checkpoints: Sequence[Checkpoint]) -> None:
        self._stream = stream
        begin = stream.first - 1
        self._ahead = sorted((one for one in checkpoints if one.seq >= begin), key=lambda one: (one.seq, one.serial))
        self._all = checkpoints
        self._salts = Salts(stream.salts)
        self._trees: dict[int, MerkleRange] = {}
        """Trees that were begun, by the message that they begin behind."""
        self._head = b""
        self.seq = Seq(begin)
        self._sound = begin
        self._covered = max([one.seq for one in checkpoints if one.seq < begin], default=0)
        self.result: Comparison | None = None

    def start(self, head: bytes) -> None:
        """The chain in front of what is retained, as it is stored."""
        self._head = head
        self._trees[self.seq] = MerkleRange()
        self._meet()

    def take(self, first: int, messages: Sequence[bytes]) -> None:
        """The next messages, cut where there are checkpoints."""
        _, leaves = links(self._head, first, messages, self._salts)
        done = 0
        while done < len(leaves) and self.result is None:
            upto = min(len(leaves), self._ahead[0].seq - first + 1) if self._ahead else len(leaves)
            part = leaves[done:upto]
            self._head = fold(self._head, part)
            for tree in self._trees.values():
                tree.extend(part)
            done = upto
            self.seq = Seq(first + done - 1)
            self._meet()

    def _meet(self) -> None:
        """Compare with the checkpoints of this place."""
        while self._ahead and self._ahead[0].seq == self.seq and self.result is None:
            checkpoint = self._ahead.pop(0)
            tree = self._trees.get(checkpoint.base)
            if tree is None:  # it begins with messages that are gone: from here on its tree is known
                own = checkpoint.tree
                tree = self._trees[checkpoint.base] = MerkleRange(own.size, own.encoded)
            if checkpoint.head != self._head or checkpoint.tree.root() != tree.root():
                self._fail("written anew", self._sound + 1, self.seq)
            elif checkpoint.ended is not None and self._stream.head > self.seq:
                self._fail("appended behind the end of the stream", self.seq + 1, self._stream.head)
            else:
                self._sound = self._covered = self.seq

    def _fail(self, reason: str, bad: int, bad_last: int) -> None:
        self.result = Comparison(self._covered, reason, bad, max(bad, bad_last))

    def end(self) -> Comparison:
        """What the checkpoints say of more than there is."""
        stream = self._stream
        last = max([one.seq for one in self._all], default=0)
        if last > stream.head:
            return Comparison(self._covered, "cut off", stream.head + 1, last)
        ends = [one.ended for one in self._all if one.ended is not None]
        if ends and ends[-1] != stream.state.value:
            reason = f"said to have ended as {ends[-1]}, and is {stream.state.value}"
            return Comparison(self._covered, reason, stream.head, stream.head)
        return Comparison(self._covered)
