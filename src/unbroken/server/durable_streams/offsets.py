"""Offsets, the protocol's word for a place in a stream: `epoch_seq`, both as 16 digits, and what they mean for a fork.

Called by the handlers of this package. Pure: it never looks at a store, the caller brings the ancestry of a fork.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from unbroken.errors import EpochMismatchError, InvalidError
from unbroken.messages import Epoch, Seq, StreamInfo

__all__ = ["BEGINNING", "FROM_START", "NOW", "Lineage", "Offset", "Ancestor"]

FROM_START: Final = "-1"
NOW: Final = "now"
_SHAPE: Final = re.compile(r"([0-9]{16})_([0-9]{16})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Offset:
    """A place behind message `seq`, named by the epoch of the stream that wrote that message.

    As text, offsets of one stream sort as bytes in the order of the stream, also across a fork: a fork's epoch is greater
    than its source's.
    """

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch:016d}_{self.seq:016d}"

    @classmethod
    def parse(cls, text: str) -> Offset:
        """Exactly what `str` gives; anything else raises `InvalidError`."""
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise InvalidError("an offset is -1, now, or one that this server gave out", field="offset")
        return cls(int(match[1]), int(match[2]))


BEGINNING: Final = Offset(0, 0)
"""The one offset that means the start of every stream; no stream has epoch 0."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A stream that others branched off from: its epoch, and up to where its own source's messages go in it."""

    epoch: Epoch
    fork_seq: Seq


@dataclass(frozen=True, slots=True)
class Lineage:
    """A stream and the streams it goes back to, itself first. All but the root have a `fork_seq`."""

    ancestors: tuple[Ancestor, ...]

    @classmethod
    def of(cls, *streams: StreamInfo) -> Lineage:
        """The lineage of the first stream; each of the others is the source of the one before it."""
        return cls(tuple(Ancestor(stream.epoch, stream.fork_seq) for stream in streams))

    def offset(self, seq: Seq) -> Offset:
        """The offset behind message `seq` of the stream."""
        for ancestor in self.ancestors[:-1]:
            if seq > ancestor.fork_seq:
                return Offset(ancestor.epoch, seq)
        return Offset(self.ancestors[-1].epoch, seq)

    def seq(self, offset: Offset) -> Seq:
        """The seq that `offset` means in the stream; `EpochMismatchError` when it is a place of another one.

        The stream's own epoch is understood for the messages that it inherited too.
        """
        own = self.ancestors[0].epoch
        seq = Seq(offset.seq)
        if offset.epoch not in {own, self.offset(seq).epoch}:
            raise EpochMismatchError("the offset belongs to another stream, or an earlier one of this name", epoch=own)
        return seq
