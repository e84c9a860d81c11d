"""A client of TLS 1.3 that can say what no library lets it say: that it has new keys, as often as it likes.

The handshake is Python's own; the records behind it are made here, with the secret that it writes down (RFC 8446, 5 and 7).
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = ["NewKeys"]

DATA, HANDSHAKE = 23, 22
KEY_UPDATE = b"\x18\0\0\1"


class NewKeys:
    """One connection, once `shake_hands` is done."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def shake_hands(self, context: ssl.SSLContext, secrets: Path) -> None:
        """Shake hands, with what the library writes to `secrets`."""
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = str(secrets)
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        library = context.wrap_bio(received, to_send, server_hostname="127.0.0.1")
        while True:
            try:
                library.do_handshake()
            except ssl.SSLWantReadError:
                self.writer.write(to_send.read())
                received.write(await self.reader.read(65_536))
            else:
                break
        self.writer.write(to_send.read())
        lines = [line.split() for line in (await asyncio.to_thread(secrets.read_text)).splitlines()]
        self._secret = next(bytes.fromhex(line[2]) for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        name = (library.cipher() or ("",))[0]
        self._hash = hashes.SHA384() if name.endswith("SHA384") else hashes.SHA256()
        self._cipher = ChaCha20Poly1305 if "CHACHA20" in name else AESGCM
        self._key_bytes = 16 if "AES_128" in name else 32
        self._begin()

    def data(self, text: bytes) -> bytes:
        """A record with data."""
        return self._record(DATA, text)

    def new_key(self, *, back: bool) -> bytes:
        """The record that says that the next one has a new key; with `back` the other side is to do the same."""
        record = self._record(HANDSHAKE, KEY_UPDATE + bytes([back]))
        self._secret = self._expand(b"traffic upd", self._hash.digest_size)
        self._begin()
        return record

    def _record(self, kind: int, content: bytes) -> bytes:
        header = b"\x17\x03\x03" + struct.pack(">H", len(content) + 17)
        nonce = bytes(one ^ other for one, other in zip(self._vector, self._number.to_bytes(12, "big"), strict=True))
        self._number += 1
        return header + self._sealing.encrypt(nonce, content + bytes([kind]), header)

    def _begin(self) -> None:
        self._sealing = self._cipher(self._expand(b"key", self._key_bytes))
        self._vector = self._expand(b"iv", 12)
        self._number = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        info = struct.pack(">HB", size, len(label) + 6) + b"tls13 " + label + b"\0"
        return HKDFExpand(self._hash, size, info).derive(self._secret)
