"""A checkpoint: what a stream was at one moment, in the text of c2sp.org/tlog-checkpoint with lines of our own.

The keeper makes them, `unbroken verify` reads them. It names a stream by its epoch alone, so that nothing of a person is in
a file from which nothing can be taken out.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass

from unbroken.checkpoints.merkle import MerkleRange
from unbroken.errors import InvalidError
from unbroken.protocol.chain import HASH_BYTES

__all__ = ["NOTHING_BEFORE", "Checkpoint"]

NOTHING_BEFORE = bytes(HASH_BYTES)
_TEXT = re.compile(
    r"(?P<log>[^\n]+)/(?P<epoch>[1-9]\d{0,15})(?:-from-(?P<base>[1-9]\d{0,15}))?\n"
    r"(?P<size>0|[1-9]\d{0,15})\n(?P<root>[A-Za-z0-9+/=]+)\n"
    r"chain (?P<head>[A-Za-z0-9+/=]+)\n(?:range (?P<range>[A-Za-z0-9+/=]+)\n)?"
    r"time (?P<time>\d{1,15})\nserial (?P<serial>[1-9]\d{0,15})\nprevious (?P<previous>[A-Za-z0-9+/=]+)\n"
    r"(?:ended (?P<ended>[a-z_]+)\n)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Of the stream with that epoch: the Merkle tree of its leaves behind message `base`, and its chain at the last of them.

    `serial` counts the checkpoints of a file, `previous` is the SHA-256 of the note before it there. With `ended` no message
    follows.
    """

    log: str
    epoch: int
    base: int
    tree: MerkleRange
    head: bytes
    time_ms: int
    serial: int
    previous: bytes
    ended: str | None = None

    @property
    def seq(self) -> int:
        """The last message that it covers."""
        return self.base + self.tree.size

    @property
    def origin(self) -> str:
        """The identity of the log, which is one incarnation of one stream."""
        behind = f"-from-{self.base}" if self.base else ""
        return f"{self.log}/{self.epoch}{behind}"

    def text(self) -> str:
        """What is signed."""
        lines = [self.origin, str(self.tree.size), _encoded(self.tree.root()), f"chain {_encoded(self.head)}"]
        if self.tree.size:
            lines.append(f"range {_encoded(self.tree.encoded)}")
        lines += [
            f"time {self.time_ms}",
            f"serial {self.serial}",
            f"previous {_encoded(self.previous)}",
        ]
        if self.ended is not None:
            lines.append(f"ended {self.ended}")
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint whose `text()` this is; `InvalidError` where it is none of ours, or does not fit itself."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidError("not a checkpoint of Unbroken")
        try:
            tree = MerkleRange(int(match["size"]), b64decode(match["range"] or "", validate=True))
            head, previous = b64decode(match["head"], validate=True), b64decode(match["previous"], validate=True)
            root = b64decode(match["root"], validate=True)
        except ValueError:
            raise InvalidError("a checkpoint that is not complete") from None
        if root != tree.root() or len(head) != HASH_BYTES or len(previous) != HASH_BYTES:
            raise InvalidError("a checkpoint whose root is not that of its range")
        checkpoint = cls(
            log=match["log"],
            epoch=int(match["epoch"]),
            base=int(match["base"] or 0),
            tree=tree,
            head=head,
            time_ms=int(match["time"]),
            serial=int(match["serial"]),
            previous=previous,
            ended=match["ended"],
        )
        if checkpoint.text() != text:  # zeros in front of a number, bits of base64 that stand for nothing
            raise InvalidError("a checkpoint that is written in another way than ours")
        return checkpoint


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()
