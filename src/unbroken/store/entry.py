"""A stream as the writing side of a store holds it: its facts, its growing end, and what its producers sent last.

`decide` and `apply` change entries, a store makes the changes durable and drops its entries when that fails. An entry
never does I/O and is never seen outside `unbroken.store`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from unbroken.messages import Seq, StreamInfo
from unbroken.protocol.salts import Salts

__all__ = ["ADVANCED", "CHANGED", "CLEAN", "SLID", "Entry", "ProducerState"]

CLEAN = 0
ADVANCED = 1
"""Messages were appended: head, hash, size, time and writer sequence differ from what is stored."""
SLID = 2
"""The expiry moved."""
CHANGED = 4
"""Anything else changed."""


class ProducerState(NamedTuple):
    """The latest append that was accepted from one producer, and where its messages went."""

    epoch: int
    seq: int
    first: Seq
    last: Seq


class Entry:
    """One stream. What an append changes lies in fields of its own, because a `StreamInfo` is dear to build.

    `fixed` holds everything else and is only current for what appending does not change; `info` is the whole at this
    moment. Physically, messages up to `base_seq` are gone, and `base_hash` is the chain's value there.
    """

    __slots__ = (
        "_salts",
        "base_hash",
        "base_seq",
        "dirty",
        "expires_ms",
        "fixed",
        "hash",
        "head",
        "leaves",
        "producers",
        "size_bytes",
        "stale",
        "updated_ms",
        "writer_seq",
    )

    def __init__(self, info: StreamInfo, base_seq: Seq, base_hash: bytes) -> None:
        self.base_seq = base_seq
        self.base_hash = base_hash
        self.producers: dict[str, ProducerState | None] = {}
        self.dirty = CLEAN
        self.leaves: list[bytes] = []
        """Of the messages of the latest append."""
        self._salts: Salts | None = None
        self._take(info)

    def _take(self, info: StreamInfo) -> None:
        self.fixed = info
        self.head = info.head
        self.hash = info.hash
        self.size_bytes = info.size_bytes
        self.updated_ms = info.updated_ms
        self.expires_ms = info.expires_ms
        self.writer_seq = info.writer_seq
        self.stale = False

    @property
    def salts(self) -> Salts:
        """The salts of its messages, those of its sources included; for the writing side, and for one reader at a time."""
        known = self._salts
        if known is None or known.encoded is not self.fixed.salts:
            known = self._salts = Salts(self.fixed.salts)
        return known

    @property
    def info(self) -> StreamInfo:
        """The stream as it is now."""
        if self.stale:
            self.stale = False
            self.fixed = replace(
                self.fixed,
                head=self.head,
                hash=self.hash,
                size_bytes=self.size_bytes,
                updated_ms=self.updated_ms,
                expires_ms=self.expires_ms,
                writer_seq=self.writer_seq,
            )
        return self.fixed

    def put(self, info: StreamInfo) -> None:
        """Make `info`, derived from this entry's own, the present one."""
        self._take(info)
        self.dirty |= CHANGED

    def advance(self, head: Seq, chain_hash: bytes, size_bytes: int, now_ms: int) -> None:
        """Messages up to `head` follow, `size_bytes` in all; slides the expiry of a stream that has a time to live."""
        self.head = head
        self.hash = chain_hash
        self.size_bytes += size_bytes
        self.updated_ms = now_ms
        self.dirty |= ADVANCED
        self.stale = True
        if self.fixed.ttl_seconds is not None:
            self.slide(now_ms)

    def slide(self, now_ms: int) -> None:
        """Move the expiry of a stream that has a time to live to that time from now."""
        if self.fixed.ttl_seconds is not None:
            self.expires_ms = now_ms + self.fixed.ttl_seconds * 1000
            self.dirty |= SLID
            self.stale = True
