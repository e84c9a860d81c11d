"""The hash chain over the messages of a stream.

A leaf covers a message's salt, its seq and its encoding, a head covers the head before it and the leaf (domain-separated
SHA-256, as in RFC 6962 section 2.1). Stores extend it on append, `verify` and clients recompute it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from unbroken.protocol.salts import NO_SALTS, Salts

__all__ = ["HASH_BYTES", "LEAF_MARK_BYTES", "chain", "erased", "fold", "genesis", "is_erased", "leaf_marks", "links"]

HASH_BYTES = 32
LEAF_MARK_BYTES = 4
"""So much of each leaf is kept beside messages that are stored at once, to tell which of them was changed."""


def genesis(tenant: str, name: str, epoch: int) -> bytes:
    """The head in front of message 1, which binds the chain to one incarnation of one stream."""
    return sha256(f"\x02unbroken.chain.v1\n{tenant}\n{name}\n{epoch}".encode()).digest()


def chain(head: bytes, first: int, messages: Sequence[bytes], salts: Salts = NO_SALTS) -> bytes:
    """The head after the encoded `messages`, the first of which has seq `first`."""
    return links(head, first, messages, salts)[0]


def links(head: bytes, first: int, messages: Sequence[bytes], salts: Salts = NO_SALTS) -> tuple[bytes, list[bytes]]:
    """The head after the encoded `messages`, the first of which has seq `first`, and the leaf of each."""
    if len(messages) == 1:
        alone = _leaf(messages[0], first, salts.salt(first))
        return fold(head, (alone,)), [alone]
    new_leaf, new_node = _LEAF.copy, _NODE.copy  # `_leaf` and `fold`, without a call for each message
    leaves: list[bytes] = []
    keep = leaves.append
    seq = first
    for message, salt in zip(messages, salts.row(first, len(messages)), strict=False):
        if message[:9] == _ERASED:
            leaf = _leaf_of_erased(message)
        else:
            hashing = new_leaf()
            hashing.update(salt + seq.to_bytes(8, "big") + message)
            leaf = hashing.digest()
        keep(leaf)
        node = new_node()
        node.update(head + leaf)
        head = node.digest()
        seq += 1
    return head, leaves


def fold(head: bytes, leaves: Iterable[bytes]) -> bytes:
    """The head after messages with these leaves."""
    new_node = _NODE.copy
    for leaf in leaves:
        node = new_node()
        node.update(head + leaf)
        head = node.digest()
    return head


def leaf_marks(leaves: Sequence[bytes]) -> bytes:
    """The first bytes of each leaf."""
    if len(leaves) == 1:
        return leaves[0][:LEAF_MARK_BYTES]
    return b"".join([leaf[:LEAF_MARK_BYTES] for leaf in leaves])


def is_erased(message: bytes) -> bool:
    """Whether an encoded message is what stands in the place of one that was erased; producers cannot make such."""
    return message.startswith(_ERASED)


def erased(leaf: bytes, time_ms: int, *, continues: bool = False) -> bytes:
    """What stands in the place of a message that was erased, whose leaf was `leaf`: the chain holds as before."""
    assert len(leaf) == HASH_BYTES
    tail = b',"continues":true}' if continues else b"}"
    return b'%b%b","kind":"erased","time":%d%b' % (_ERASED, leaf.hex().encode(), time_ms, tail)


def _leaf(message: bytes, seq: int, salt: bytes) -> bytes:
    if message[:9] == _ERASED:
        return _leaf_of_erased(message)
    leaf = _LEAF.copy()
    leaf.update(salt + seq.to_bytes(8, "big") + message)
    return leaf.digest()


def _leaf_of_erased(message: bytes) -> bytes:
    """The leaf that it says; a value that fits nothing where it says none."""
    begin = len(_ERASED)
    said = message[begin : begin + 2 * HASH_BYTES]
    try:
        leaf = bytes.fromhex(said.decode("ascii"))
    except ValueError:
        return b""
    return leaf if len(leaf) == HASH_BYTES else b""


_ERASED: Final = b'{"leaf":"'
_LEAF: Final = sha256(b"\x00")
_NODE: Final = sha256(b"\x01")
"""Begun once and copied: making a hash object costs more than hashing a short message."""
