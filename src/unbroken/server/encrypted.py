"""What a peer may have the TLS library do: records that carry nothing are bounded, as its own loop has no end for them.

`BoundedServer` gives `Measured` contexts to the event loop's TLS layer. Each connection's records come to the library in
pieces, and what is in them beside data costs a budget. It never looks at the data, and leaves writing to the library.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

from unbroken.quotas import Bucket

__all__ = ["Measured"]

T = TypeVar("T")

PIECE_BYTES: Final = 8 * 1024
BARREN_BYTES_PER_SECOND_MAX: Final = 32 * 1024
"""What comes and is no data: more than the largest record and a piece, which may be there before anything of it can be read.

A new key (RFC 8446, 4.6.3) is 27 bytes and 40 microseconds, and thousands of them are done in one call.
"""
OVERHEAD_BYTES: Final = 24
OVERHEAD_BYTES_BEFORE: Final = 512
"""What may be around the data of each record; before TLS 1.3 padding is common, and there are no new keys."""


class Measured:
    """In place of an `ssl.SSLContext` in an event loop: its connections are cut off when too much comes that is no data.

    Nor is anything negotiated twice on one of them, which OpenSSL below 3 would do before TLS 1.3.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        context.options |= ssl.OP_NO_RENEGOTIATION
        self._context = context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, server_side: bool, server_hostname: str | None = None
    ) -> _Connection:
        """As the context's."""
        received = ssl.MemoryBIO()
        inner = self._context.wrap_bio(received, outgoing, server_side=server_side, server_hostname=server_hostname)
        return _Connection(inner, incoming, received)


class _Connection:
    """As an `ssl.SSLObject`, as far as an event loop uses it."""

    def __init__(self, inner: ssl.SSLObject, incoming: ssl.MemoryBIO, received: ssl.MemoryBIO) -> None:
        self._inner = inner
        self._incoming = incoming
        self._received = received
        self._now = asyncio.get_running_loop().time
        self._budget: Bucket | None = None
        self._overhead = 0
        self.write = inner.write
        self.getpeercert = inner.getpeercert
        self.cipher = inner.cipher
        self.compression = inner.compression

    def do_handshake(self) -> None:
        self._fed(self._inner.do_handshake)
        self._budget = Bucket(BARREN_BYTES_PER_SECOND_MAX, self._now())
        self._overhead = OVERHEAD_BYTES if self._inner.version() == "TLSv1.3" else OVERHEAD_BYTES_BEFORE

    def read(self, size: int, buffer: bytearray | None = None) -> bytes | int:
        """The data of the next record."""
        if not self._received.pending:
            self._receive()  # at once: an error, to be told that there is nothing, costs more than all else
        found: bytes | int = self._fed(self._inner.read, size, buffer)
        if self._budget is not None:
            self._budget.take(-self._overhead - (found if isinstance(found, int) else len(found)))
        return found

    def unwrap(self) -> None:
        self._fed(self._inner.unwrap)

    def pending(self) -> int:
        """What may be read at once."""
        return self._inner.pending() + self._received.pending

    def _fed(self, step: Callable[..., T], *args: object) -> T:
        """What `step` gives, once the library has all the pieces that it wants; its own error where no more have come."""
        while True:
            try:
                return step(*args)
            except ssl.SSLWantReadError:
                if not self._receive():
                    raise

    def _receive(self) -> bool:
        """Let the library have the next piece of what has come; False when there is none. An error when it brings nothing."""
        piece = self._incoming.read(PIECE_BYTES)
        budget = self._budget
        if piece and budget is not None:
            budget.take(len(piece))
            if budget.left(self._now()) < 0:
                raise ssl.SSLError("too many records without data")
        self._received.write(piece)
        return bool(piece)
