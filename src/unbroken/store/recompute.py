"""Recomputes the hash chain of a stream from what a store gives of it, and tells where it does not hold.

`Streams.verify` feeds it batch after batch. It is pure: it reads nothing itself, keeps no messages, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.messages import Seq, StreamInfo, split_encoded
from unbroken.protocol.chain import LEAF_MARK_BYTES, is_erased, leaf_marks, links
from unbroken.protocol.salts import Salts
from unbroken.store.base import Batch

__all__ = ["Recomputing", "Verification"]


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of recomputing a chain: `first` to `last` fit the hashes that are stored, the last of which is `hash`.

    Where the chain breaks, `bad` to `bad_last` is what does not fit: one message where the mark that is stored beside it
    tells it from its neighbours, else the stretch between two stored hashes. `erased` counts messages whose contents were
    erased.
    """

    checked: int
    first: Seq
    last: Seq
    hash: bytes
    bad: Seq | None = None
    bad_last: Seq | None = None
    erased: int = 0


class Recomputing:
    """The chain of `stream` behind message `after`, where it is `head`; advanced by `take`."""

    def __init__(self, stream: StreamInfo, after: Seq, head: bytes) -> None:
        self.seq = self._start = after
        self.head = head
        self.leaves: list[bytes] = []
        """Of the messages of the latest batch."""
        self._salts = Salts(stream.salts)
        self._sound = self._before = (after, head)
        """Where the last stored hash was met, and the one before it."""
        self._erased = 0

    def take(self, batch: Batch) -> Verification | None:
        """Go on with the next messages; what is wrong with them, None where they fit."""
        messages = split_encoded(batch.body)
        self.head, self.leaves = links(self.head, batch.first, messages, self._salts)
        self.seq = batch.last
        unlike = _unlike(batch, self.leaves)
        if unlike is not None:
            return self.broken(unlike, unlike)
        self._erased += sum(map(is_erased, messages))
        if batch.derived:
            return None
        if self.head != batch.hash:
            return self.broken()
        self._before, self._sound = self._sound, (self.seq, self.head)
        return None

    def end(self, stream: StreamInfo) -> Verification:
        """Everything was taken: whether it leads to the head that `stream` has."""
        if stream.head == self.seq and stream.hash != self.head:
            self._sound = self._before
            return self.broken()
        return Verification(self.seq - self._start, self._first, self.seq, self.head, erased=self._erased)

    def broken(self, bad: Seq | None = None, bad_last: Seq | None = None) -> Verification:
        """The chain does not hold behind the last stored hash that was met; `bad` to `bad_last` are more exact."""
        last, found = self._sound
        bad = Seq(min(last + 1, self.seq)) if bad is None else bad
        bad_last = self.seq if bad_last is None else bad_last
        return Verification(last - self._start, self._first, last, found, bad, bad_last, self._erased)

    @property
    def _first(self) -> Seq:
        return Seq(self._start + 1)


def _unlike(batch: Batch, leaves: list[bytes]) -> Seq | None:
    """The first message whose leaf is not as its mark says."""
    if not batch.marks or batch.marks == leaf_marks(leaves):
        return None
    marks = [leaf[:LEAF_MARK_BYTES] for leaf in leaves]
    kept = [batch.marks[at : at + LEAF_MARK_BYTES] for at in range(0, len(batch.marks), LEAF_MARK_BYTES)]
    number = next((number for number, pair in enumerate(zip(marks, kept, strict=False)) if pair[0] != pair[1]), 0)
    return Seq(batch.first + number)
