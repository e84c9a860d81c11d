"""Whether what one subscription receives hangs together: over all connections, and with heads that the client trusts.

`Subscription` asks it about every frame. It keeps the chain at the cursor and no messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unbroken.errors import ProtocolError, VerificationError
from unbroken.protocol.chain import fold, links
from unbroken.protocol.frames import Subscribed
from unbroken.protocol.salts import NO_SALTS, Salts

__all__ = ["ChainCheck", "Verify"]

Verify = bool | Mapping[int, str]
"""True: recompute the hash chain. Heads (hex) by their seqs: and compare with these too."""


class ChainCheck:
    """The chain at the cursor. Every question is answered with what is wrong, or None."""

    def __init__(self, stream: str, verify: Verify) -> None:
        self._stream = stream
        self._wanted = verify is not False
        self._trusted = {} if isinstance(verify, bool) else {seq: _unhex(head) for seq, head in verify.items()}
        self._head: bytes | None = None
        self._salts = NO_SALTS

    def forget(self) -> None:
        """What comes next does not continue what was."""
        self._head = None

    def begin(self, frame: Subscribed, seq: int) -> VerificationError | None:
        """The subscription stands at the cursor, which is behind message `seq`."""
        if not self._wanted:
            return None
        said = _unhex(frame.hash)
        self._salts = _salts(frame.salts)
        if not said or self._head not in {None, said} or self._trusted.get(seq, said) != said:
            return self._broken(seq, seq)
        self._head = said
        return None

    def messages(self, hash_hex: str, first: int, encoded: Sequence[bytes]) -> VerificationError | None:
        """Messages `first` … have come, with the chain at the last of them."""
        if not self._wanted:
            return None
        known, said, last = self._head, _unhex(hash_hex), first + len(encoded) - 1
        if known is None:
            return self._broken(first, last)
        self._head, leaves = links(known, first, encoded, self._salts)
        if self._head != said:
            return self._broken(first, last)
        for seq in sorted(seq for seq in self._trusted if first <= seq <= last):
            if fold(known, leaves[: seq - first + 1]) != self._trusted[seq]:
                return self._broken(first, seq)
        return None

    def end(self, head: int) -> VerificationError | None:
        """The stream has ended with message `head`."""
        last = max(self._trusted, default=0)
        return self._broken(head + 1, last) if last > head else None

    def _broken(self, seq: int, last: int) -> VerificationError:
        where = f"message {seq}" if seq == last else f"messages {seq} to {last}"
        return VerificationError(
            f"the hash chain of {self._stream} does not hold in {where}", stream=self._stream, seq=seq, last=last
        )


def _salts(encoded: bytes) -> Salts:
    try:
        return Salts(encoded)
    except ValueError as error:
        raise ProtocolError(f"not the salts of a stream: {error}") from None


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ProtocolError("a hash is hexadecimal") from None
