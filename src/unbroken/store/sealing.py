"""Encryption at rest: one key for each stream, and what is encrypted with it (AES-256-GCM, a random nonce for each time).

SQL stores seal what they insert and open what they select through here. A key encrypts less than 2^32 times: each chunk once,
again where compaction merges it, and each change of a few short texts. Nothing here does I/O but asking a `Wrapping`.
"""

from __future__ import annotations

import base64
import os
import struct
from collections import OrderedDict
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from unbroken.errors import CorruptError
from unbroken.store.keys import KEY_BYTES, Wrapping, WrongKeyError

__all__ = ["KeySource", "Keyring", "StreamKey", "is_sealed"]

NONCE_BYTES: Final = 12
SEALED_TEXT: Final = "sealed:"
"""How a text begins that is sealed; no JSON object does."""
KEPT_MAX: Final = 10_000
_CONTEXT: Final = struct.Struct(">QQ")


class StreamKey:
    """Seals what belongs to one stream, and opens it. What is sealed as one thing does not open as another.

    `what` names the thing: a chunk with its place, sizes and hash, or a column.
    """

    __slots__ = ("_cipher", "_context", "epoch", "stream")

    def __init__(self, key: bytes, stream: int, epoch: int) -> None:
        self._cipher = AESGCM(key)
        self._context = _CONTEXT.pack(stream, epoch)
        self.stream = stream
        self.epoch = epoch

    def seal(self, data: bytes, what: bytes) -> bytes:
        """`data`, encrypted with a nonce that was never used before."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, self._context + what)

    def open(self, sealed: bytes, what: bytes) -> bytes:
        """What was sealed; `CorruptError` when that was changed, or is something else."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._context + what)
        except (InvalidTag, ValueError):
            raise CorruptError(
                f"something of stream {self.stream} cannot be decrypted: it was changed, or is not its own",
                stream=self.stream,
            ) from None

    def seal_text(self, text: str, what: bytes) -> str:
        """`text`, sealed, as text."""
        return SEALED_TEXT + base64.b64encode(self.seal(text.encode(), what)).decode()

    def open_text(self, text: str, what: bytes) -> str:
        """What `seal_text` was given; what is not sealed is given back as it is."""
        if not is_sealed(text):
            return text
        try:
            sealed = base64.b64decode(text.removeprefix(SEALED_TEXT), validate=True)
        except ValueError:
            sealed = b""
        return self.open(sealed, what).decode()


class KeySource(Protocol):
    """Where the key of a stream is found."""

    def reading(self, stream: int) -> StreamKey | None:
        """The key with which what the stream holds was sealed; None where nobody has given a master key."""
        ...


def is_sealed(text: str) -> bool:
    """Whether `text` was sealed."""
    return text.startswith(SEALED_TEXT)


class Keyring:
    """The keys of streams, wrapped and unwrapped. Shared by the threads of a store; unwrapped ones are remembered."""

    def __init__(self, wrapping: Wrapping) -> None:
        self.wrapping = wrapping
        self._kept: OrderedDict[bytes, StreamKey] = OrderedDict()

    def fresh(self, stream: int, epoch: int) -> tuple[StreamKey, bytes]:
        """A new key, and its wrapped form, which must be stored with whatever it seals."""
        key = os.urandom(KEY_BYTES)
        wrapped = self.wrapping.wrap(key, _context(stream, epoch))
        return self._keep(wrapped, StreamKey(key, stream, epoch)), wrapped

    def unwrapped(self, wrapped: bytes, stream: int, epoch: int) -> StreamKey:
        """The key in a wrapped form; `CorruptError` when no master key fits."""
        kept = self._kept.get(wrapped)
        if kept is not None and (kept.stream, kept.epoch) == (stream, epoch):
            return kept
        try:
            key = self.wrapping.unwrap(wrapped, _context(stream, epoch))
        except WrongKeyError as error:
            raise CorruptError(f"the key of stream {stream} cannot be unwrapped: {error}", stream=stream) from error
        return self._keep(wrapped, StreamKey(key, stream, epoch))

    def rewrapped(self, wrapped: bytes, stream: int, epoch: int) -> bytes:
        """The same key, wrapped with the master key that is the first one now."""
        context = _context(stream, epoch)
        return self.wrapping.wrap(self.wrapping.unwrap(wrapped, context), context)

    def drop(self, wrapped: bytes) -> None:
        """Forget a key that was destroyed."""
        self._kept.pop(wrapped, None)

    def _keep(self, wrapped: bytes, key: StreamKey) -> StreamKey:
        self._kept[wrapped] = key
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return key


def _context(stream: int, epoch: int) -> bytes:
    return b"unbroken stream key\n" + _CONTEXT.pack(stream, epoch)
