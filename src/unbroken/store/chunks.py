"""The stored form of consecutive messages: one row with its key, its checksum and its body.

SQL stores encode what they insert and decode what they select through here; a row whose checksum does not match raises
`CorruptError` and is never served. Pure: no I/O.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from zlib_ng.zlib_ng import crc32  # the same CRC-32 as zlib's, four times as fast

from unbroken.errors import CorruptError
from unbroken.messages import SEPARATOR, Seq, StreamId, join_encoded, split_encoded
from unbroken.protocol.chain import LEAF_MARK_BYTES
from unbroken.store.base import Batch
from unbroken.store.sealing import KeySource, StreamKey

__all__ = ["SEALED", "ZLIB", "ChunkRow", "chunk_key", "decode_chunk", "encode_chunk", "key_seq", "slice_batch"]

ZLIB = 1
"""Flag: the body is compressed."""
SEALED = 2
"""Flag: the body, compressed or not, is encrypted with the key of the stream."""
FLAGS_KNOWN = ZLIB | SEALED
SEQ_BITS = 32
SEQ_MASK = (1 << SEQ_BITS) - 1
_HEADER = struct.Struct(">QQII")
_PLACE = struct.Struct(">QII")


class ChunkRow(NamedTuple):
    """A chunk as it lies in a table: `key` packs the stream and its last seq."""

    key: int
    n: int
    flags: int
    crc: int
    hash: bytes
    body: bytes
    marks: bytes | None = None


def chunk_key(stream: StreamId, seq: Seq) -> int:
    """The key of the chunk of `stream` that ends with `seq`; keys of one stream sort by seq."""
    return stream << SEQ_BITS | seq


def key_seq(key: int) -> Seq:
    """The last seq of the chunk with that key."""
    return Seq(key & SEQ_MASK)


def encode_chunk(stream: StreamId, batch: Batch, *, compress: bool = False, key: StreamKey | None = None) -> ChunkRow:
    """The row of a batch. Compressed only where that saves a quarter at least; encrypted with `key`, if any."""
    n = batch.last - batch.first + 1
    assert n > 0
    assert 0 < batch.last <= SEQ_MASK
    assert batch.body.count(SEPARATOR) == n - 1, (
        "a body holds as many messages as it says, none of them with a line feed"
    )
    body, flags = batch.body, 0
    if compress:
        packed = zlib.compress(body, 1)
        if len(packed) * 4 <= len(body) * 3:
            body, flags = packed, ZLIB
    marks = batch.marks
    assert len(marks) in {0, n * LEAF_MARK_BYTES}
    if key is not None:
        flags |= SEALED
        body = key.seal(body, _what(batch.last, n, flags, batch.hash + marks))
    crc = _checksum(stream, batch.last, (n, flags), batch.hash, body, marks)
    assert crc is not None
    return ChunkRow(chunk_key(stream, batch.last), n, flags, crc, batch.hash, body, marks or None)


def decode_chunk(row: ChunkRow, keys: KeySource | None = None, *, sealed: bool = False) -> Batch:
    """The batch in a row, or `CorruptError` naming the stream and the seq.

    `keys` is asked where it is encrypted; with `sealed` the body is given as it is stored.
    """
    stream, last = StreamId(row.key >> SEQ_BITS), key_seq(row.key)
    marks = row.marks or b""
    fits = len(marks) in {0, row.n * LEAF_MARK_BYTES} and not row.flags & ~FLAGS_KNOWN
    if not fits or _checksum(stream, last, (row.n, row.flags), row.hash, row.body, marks) != row.crc:
        raise CorruptError(
            f"the chunk of stream {stream} that ends with message {last} does not match its checksum",
            stream=stream,
            seq=last,
        )
    body = row.body
    if sealed:
        return Batch(Seq(last - row.n + 1), last, body, row.hash, marks=marks)
    if row.flags & SEALED:
        body = _opened(row, keys)
    try:
        body = zlib.decompress(body) if row.flags & ZLIB else body
    except zlib.error:
        raise CorruptError(
            f"the chunk of stream {stream} that ends with message {last} cannot be read", stream=stream, seq=last
        ) from None
    return Batch(Seq(last - row.n + 1), last, body, row.hash, marks=marks)


def _opened(row: ChunkRow, keys: KeySource | None) -> bytes:
    """The body of a row that is sealed; `CorruptError` as of `decode_chunk`."""
    stream, last = StreamId(row.key >> SEQ_BITS), key_seq(row.key)
    try:
        key = None if keys is None else keys.reading(stream)
        if key is None:
            raise CorruptError(f"stream {stream} is encrypted, and there is no key", stream=stream)
        return key.open(row.body, _what(last, row.n, row.flags, row.hash + (row.marks or b"")))
    except CorruptError as error:
        error.detail.setdefault("seq", last)
        raise


def _what(last: int, n: int, flags: int, hashes: bytes) -> bytes:
    """What a sealed body is bound to besides its stream and epoch."""
    return b"chunk" + _PLACE.pack(last, n, flags) + hashes


def _checksum(
    stream: int, last: int, sizes: tuple[int, int], chain_hash: bytes, body: bytes, marks: bytes
) -> int | None:
    """Key columns are covered too: a row that moved to another stream or place is as damaged as a flipped bit.

    None when a number is out of bounds.
    """
    try:
        header = _HEADER.pack(stream, last, *sizes)
    except struct.error:
        return None
    return crc32(marks, crc32(body, crc32(chain_hash, crc32(header))))


def slice_batch(batch: Batch, after: Seq) -> Batch:
    """The part of `batch` behind `after`."""
    if after < batch.first:
        return batch
    assert after < batch.last
    messages = split_encoded(batch.body)
    gone = after - batch.first + 1
    marks = batch.marks[gone * LEAF_MARK_BYTES :]
    return Batch(Seq(after + 1), batch.last, join_encoded(messages[gone:]), batch.hash, marks=marks)
