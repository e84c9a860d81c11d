"""The stored form of messages: nothing is lost on the way, and any change shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import CorruptError
from unbroken.messages import Seq, StreamId, join_encoded
from unbroken.store.base import Batch
from unbroken.store.chunks import (
    ZLIB,
    ChunkRow,
    _checksum,
    chunk_key,
    decode_chunk,
    encode_chunk,
    key_seq,
    slice_batch,
)
from unbroken.store.sealing import StreamKey

STREAMS = st.integers(1, 2**31 - 1).map(StreamId)
MESSAGES = st.lists(st.binary(min_size=1, max_size=40).filter(lambda m: b"\n" not in m), min_size=1, max_size=20)
HASH = bytes(range(32))


@given(STREAMS, st.integers(1, 2**32 - 100), MESSAGES, st.booleans())
def test_a_batch_comes_back_as_it_was(stream: StreamId, first: int, messages: list[bytes], compress: bool) -> None:
    marks = bytes(range(4)) * len(messages)
    batch = Batch(Seq(first), Seq(first + len(messages) - 1), join_encoded(messages), HASH, marks=marks)
    row = encode_chunk(stream, batch, compress=compress)
    assert decode_chunk(row) == batch
    assert row.key == chunk_key(stream, batch.last) < 2**63
    assert key_seq(row.key) == batch.last


def test_only_what_shrinks_by_a_quarter_is_compressed() -> None:
    same, other = b"a" * 1_000, bytes(range(128, 250))
    assert encode_chunk(StreamId(1), Batch(Seq(1), Seq(1), same, HASH), compress=True).flags == ZLIB
    assert encode_chunk(StreamId(1), Batch(Seq(1), Seq(1), other, HASH), compress=True).flags == 0
    assert encode_chunk(StreamId(1), Batch(Seq(1), Seq(1), same, HASH)).flags == 0


@given(st.data(), st.booleans())
def test_every_flipped_bit_is_noticed(data: st.DataObject, compress: bool) -> None:
    body = join_encoded([b"message %d" % n for n in range(30)])
    row = encode_chunk(StreamId(7), Batch(Seq(11), Seq(40), body, HASH, marks=bytes(120)), compress=compress)
    field = data.draw(st.sampled_from(ChunkRow._fields))
    value = getattr(row, field)
    if isinstance(value, bytes):
        at = data.draw(st.integers(0, len(value) * 8 - 1))
        flipped: object = value[: at // 8] + bytes([value[at // 8] ^ 1 << at % 8]) + value[at // 8 + 1 :]
    else:
        flipped = value ^ 1 << data.draw(st.integers(0, 30))
    with pytest.raises(CorruptError) as caught:
        decode_chunk(row._replace(**{field: flipped}))  # type: ignore[arg-type]
    assert set(caught.value.detail) == {"stream", "seq"}


def test_numbers_that_no_store_wrote_are_damage_and_not_a_crash() -> None:
    row = encode_chunk(StreamId(1), Batch(Seq(1), Seq(2), b"a,\nb", HASH))
    for bad in (row._replace(n=-1), row._replace(flags=2**40), row._replace(crc=-1, n=-1), row._replace(key=-5)):
        with pytest.raises(CorruptError):
            decode_chunk(bad)


@given(MESSAGES, st.data())
def test_a_slice_is_what_lies_behind_the_cursor(messages: list[bytes], data: st.DataObject) -> None:
    first = 5
    marks = [bytes([number]) * 4 for number in range(len(messages))]
    batch = Batch(Seq(first), Seq(first + len(messages) - 1), join_encoded(messages), HASH, marks=b"".join(marks))
    after = data.draw(st.integers(0, batch.last - 1))
    sliced = slice_batch(batch, Seq(after))
    kept = messages[max(0, after - first + 1) :]
    assert (sliced.first, sliced.last, sliced.body) == (max(first, after + 1), batch.last, join_encoded(kept))
    assert (sliced.hash, sliced.marks) == (HASH, b"".join(marks[max(0, after - first + 1) :]))


def test_what_cannot_be_decrypted_is_named() -> None:
    row = encode_chunk(StreamId(7), Batch(Seq(1), Seq(2), b"a,\nb", HASH), key=StreamKey(bytes(32), 7, 3))
    for key in (StreamKey(bytes([1] * 32), 7, 3), None):
        with pytest.raises(CorruptError) as caught:
            decode_chunk(row, Keys(key))
        assert caught.value.detail == {"stream": 7, "seq": 2}
    assert decode_chunk(row, Keys(StreamKey(bytes(32), 7, 3))).body == b"a,\nb"


@pytest.mark.scenario("SEC-002")
def test_what_is_encrypted_is_of_its_place_size_hash_and_leaves_alone_whoever_mends_its_checksum() -> None:
    def row_at(last: int, body: bytes = b"a,\nb", chain_hash: bytes = HASH) -> ChunkRow:
        batch = Batch(Seq(last - 1), Seq(last), body, chain_hash, marks=bytes(8))
        return encode_chunk(StreamId(7), batch, key=StreamKey(bytes(32), 7, 3))

    row, other = row_at(4), row_at(6, b"c,\nd", bytes(32))
    moved = [row._replace(key=other.key), other._replace(key=row.key), row._replace(body=other.body)]
    changed = [row._replace(n=1, marks=bytes(4)), row._replace(flags=row.flags | ZLIB), row._replace(hash=other.hash)]
    changed += [row._replace(marks=None), row._replace(marks=bytes(7) + b"x"), row._replace(key=row.key + (1 << 32))]
    for one in (*moved, *changed):
        stream, last = StreamId(one.key >> 32), key_seq(one.key)
        crc = _checksum(stream, last, (one.n, one.flags), one.hash, one.body, one.marks or b"")
        assert crc is not None
        mended = one._replace(crc=crc)
        decode_chunk(mended, sealed=True)
        with pytest.raises(CorruptError, match="decrypted"):
            decode_chunk(mended, Keys(StreamKey(bytes(32), stream, 3)))
    assert decode_chunk(row, Keys(StreamKey(bytes(32), 7, 3))).body == b"a,\nb"


class Keys:
    """Has one key for every stream, or none."""

    def __init__(self, key: StreamKey | None) -> None:
        self._key = key

    def reading(self, _stream: int) -> StreamKey | None:
        return self._key
