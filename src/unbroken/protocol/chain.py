"""The hash chain over the messages of a stream.

A leaf covers a message's seq and its encoding, a head covers the head before it and the leaf (domain-separated SHA-256, the
prefixes as in RFC 6962 section 2.1). Stores extend it on append, `verify` and clients recompute it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

__all__ = ["HASH_BYTES", "chain", "genesis"]

HASH_BYTES = 32


def genesis(tenant: str, name: str, epoch: int) -> bytes:
    """The head in front of message 1, which binds the chain to one incarnation of one stream."""
    return sha256(f"\x02unbroken.chain.v1\n{tenant}\n{name}\n{epoch}".encode()).digest()


def chain(head: bytes, first: int, messages: Iterable[bytes]) -> bytes:
    """The head after the encoded `messages`, the first of which has seq `first`."""
    new_leaf, new_node = _LEAF.copy, _NODE.copy
    for seq, message in enumerate(messages, first):
        leaf = new_leaf()
        leaf.update(seq.to_bytes(8, "big") + message)
        node = new_node()
        node.update(head + leaf.digest())
        head = node.digest()
    return head


_LEAF: Final = sha256(b"\x00")
_NODE: Final = sha256(b"\x01")
"""Begun once and copied: making a hash object costs more than hashing a short message."""
