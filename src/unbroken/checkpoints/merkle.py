"""The Merkle tree of RFC 6962 over the leaves of a stream, as far as it is needed to go on: its complete subtrees.

Whoever makes or checks checkpoints feeds it leaf hashes in order. It keeps one hash for each bit that is set in its size.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from unbroken.protocol.chain import HASH_BYTES

__all__ = ["MerkleRange"]


class MerkleRange:
    """A tree of `size` leaves. `encoded` is what it can be made from again."""

    __slots__ = ("_subtrees", "size")

    def __init__(self, size: int = 0, encoded: bytes = b"") -> None:
        """ValueError where `encoded` is not that of a tree of this size."""
        if len(encoded) != size.bit_count() * HASH_BYTES:
            raise ValueError("a tree has a hash for each bit of its size")
        self.size = size
        self._subtrees = [encoded[at : at + HASH_BYTES] for at in range(0, len(encoded), HASH_BYTES)]
        """Roots of complete subtrees, the largest first; their sizes are the bits of `size`."""

    @property
    def encoded(self) -> bytes:
        return b"".join(self._subtrees)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Put leaf hashes behind those that there are."""
        subtrees = self._subtrees
        for leaf in leaves:
            node = leaf
            size = self.size
            while size & 1:
                node = _parent(subtrees.pop(), node)
                size >>= 1
            subtrees.append(node)
            self.size += 1

    def root(self) -> bytes:
        """The tree's hash."""
        if not self._subtrees:
            return sha256(b"").digest()
        *larger, node = self._subtrees
        for subtree in reversed(larger):
            node = _parent(subtree, node)
        return node


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
