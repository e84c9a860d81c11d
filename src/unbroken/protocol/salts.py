"""The salts of a stream's messages: values that nobody can guess, computed from few seeds, and taken away one by one.

Salts are the leaves of a tree of seeds, four below each; whoever has a seed has every salt below it. So a stream needs one
seed, and erasing a message needs the seeds beside its own. Stores keep them, clients get them with a subscription.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import sha512
from itertools import pairwise
from typing import NamedTuple

__all__ = ["NO_SALTS", "SALT_BYTES", "Salts"]

SALT_BYTES = 16
DEPTH = 16
"""Of a salt; four to this power is the number of seqs that there are."""
SEQ_MAX = 4**DEPTH - 1
_NODE = struct.Struct(f">IB{SALT_BYTES}s")


Four = tuple[bytes, bytes, bytes, bytes]
NONE: Four = (b"", b"", b"", b"")
_NOTHING = (b"",)


class _Node(NamedTuple):
    """A seed at `depth` whose salts are used from `first` to the end of its subtree."""

    first: int
    depth: int
    seed: bytes

    @property
    def last(self) -> int:
        return self.first | (1 << 2 * (DEPTH - self.depth)) - 1


class Salts:
    """The salt of each seq, "" where there is none: of a stream without salts, or because it was taken away.

    The value is immutable; it remembers the way to the latest salt, so one task or thread at a time may ask.
    """

    __slots__ = ("_above", "_blocks", "_first", "_firsts", "_four", "_latest", "_nodes", "_number", "encoded")

    def __init__(self, encoded: bytes = b"") -> None:
        """`encoded` as the attribute of that name gives it; ValueError where it is not that."""
        if len(encoded) % _NODE.size:
            raise ValueError("salts are whole seeds")
        self.encoded = encoded
        self._nodes = [_Node(*parts) for parts in _NODE.iter_unpack(encoded)]
        if any(node.depth > DEPTH for node in self._nodes) or any(
            left.last >= right.first for left, right in pairwise(self._nodes)
        ):
            raise ValueError("seeds are in order and apart")
        self._firsts = [node.first for node in self._nodes]
        self._blocks: list[bytes] = [b""] * DEPTH
        """By depth, of the way to message `_latest`, which begins at the seed `_number`: the four seeds below each one."""
        self._number = self._latest = -1
        self._first = -1
        self._four: Four = NONE
        """The salts of the four messages from `_first` on."""
        self._above = b""
        """The four seeds of which one is right above those salts, where all are below one seed of ours."""

    @classmethod
    def fresh(cls, seed: bytes, first: int = 0) -> Salts:
        """A salt for every seq from `first` on. `seed` is random and secret, and used for nothing else."""
        assert len(seed) == SALT_BYTES
        return cls(_NODE.pack(first, 0, seed))

    def __bool__(self) -> bool:
        return bool(self.encoded)

    def salt(self, seq: int) -> bytes:
        """The salt of message `seq`."""
        return self.four(seq)[seq & 3]

    def four(self, seq: int) -> Four:
        """The salts of the four messages of which `seq` is one; the first of their seqs is a multiple of four."""
        first = seq & ~3
        if first == self._first:
            return self._four
        if first == self._first + 4 and first & 12 and self._above:  # below the same seed as those before
            which = (first >> 2 & 3) * SALT_BYTES
            block = _below(self._above[which : which + SALT_BYTES])
            self._four = four = (block[:16], block[16:32], block[32:48], block[48:])
            self._first = first
            return four
        if not self._nodes:
            return NONE
        self._first = first
        number = bisect_right(self._firsts, first) - 1
        if number >= 0 and first + 3 <= self._nodes[number].last:
            block = self._block(number, first)
            self._four = four = (block[:16], block[16:32], block[32:48], block[48:])
            return four
        self._four = (self._alone(first), self._alone(first + 1), self._alone(first + 2), self._alone(first + 3))
        return self._four

    def _block(self, number: int, first: int) -> bytes:
        """The salts of the four messages from `first` on, which are below the seed `number`, by the way to those before."""
        _, top, seed = self._nodes[number]
        blocks, depth = self._blocks, top
        if number == self._number:
            depth = DEPTH - ((first ^ self._latest).bit_length() + 1) // 2  # so far the way is the same
        else:
            blocks[depth] = _below(seed)
        for below in range(depth + 1, DEPTH):
            which = (first >> 2 * (DEPTH - below) & 3) * SALT_BYTES
            blocks[below] = _below(blocks[below - 1][which : which + SALT_BYTES])
        self._latest, self._number = first, number
        self._above = blocks[DEPTH - 2] if top < DEPTH - 1 else b""
        return blocks[DEPTH - 1]

    def _alone(self, seq: int) -> bytes:
        """The salt of a message that is not below the same seed as its neighbours."""
        number = bisect_right(self._firsts, seq) - 1
        self._above = b""
        if number < 0 or seq > self._nodes[number].last:
            return b""
        node = self._nodes[number]
        seed = node.seed
        for below in range(node.depth + 1, DEPTH + 1):
            which = (seq >> 2 * (DEPTH - below) & 3) * SALT_BYTES
            seed = _below(seed)[which : which + SALT_BYTES]
        return seed

    def row(self, first: int, count: int) -> Sequence[bytes]:
        """The salts of `count` messages from `first` on."""
        if not self._nodes:
            return _NOTHING * count
        skip = first & 3
        if skip + count <= 4:
            return self.four(first)[skip : skip + count]
        row: list[bytes] = []
        for seq in range(first - skip, first + count, 4):
            row += self.four(seq)
        return row[skip : skip + count]

    def upto(self, last: int) -> Salts:
        """Those of the seqs up to `last`; from these nobody can compute another."""
        return self._of(0, last)

    def without(self, first: int, last: int) -> Salts:
        """All but those of the seqs `first` to `last`, which nobody can compute any more."""
        return Salts(self._of(0, first - 1).encoded + self._of(last + 1, SEQ_MAX).encoded)

    def and_then(self, later: Salts) -> Salts:
        """These, and behind them `later`."""
        return Salts(self.encoded + later.encoded)

    def _of(self, low: int, high: int) -> Salts:
        return Salts(b"".join([_NODE.pack(*part) for node in self._nodes for part in _within(node, low, high)]))


def _below(seed: bytes) -> bytes:
    """The four seeds below a seed, or the four salts."""
    hashing = _BEGUN.copy()
    hashing.update(seed)
    return hashing.digest()


def _within(node: _Node, low: int, high: int) -> Iterator[_Node]:
    """Seeds for the salts of `node` from `low` to `high`, and for no others that are used."""
    first, depth, seed = node
    if max(first, low) > min(node.last, high):
        return
    if low <= first and node.last <= high:
        yield node
        return
    below = _below(seed)
    size = 1 << 2 * (DEPTH - depth - 1)
    begin = first & -(4 * size)
    for which in range(4):
        start = begin + which * size
        if start + size > first:
            part = below[which * SALT_BYTES : (which + 1) * SALT_BYTES]
            yield from _within(_Node(max(start, first), depth + 1, part), low, high)


_BEGUN = sha512()
"""Begun once and copied, which costs less than making one."""
NO_SALTS = Salts()
