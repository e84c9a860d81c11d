"""Every page has a checksum: wherever a bit changes, whoever reads that page is told, and nobody else is harmed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.integration.store.opening import keyed, stored_body
from tests.support.builders import append, create, encoded, read_all
from unbroken.errors import CorruptError, StoreUnsupportedError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamId
from unbroken.store.base import Durability
from unbroken.store.sqlite import SQLiteStore, connection
from unbroken.store.sqlite.page_checksums import checking_vfs, page_is_sound
from unbroken.store.sqlite.salvage import unsound_pages

pytestmark = pytest.mark.anyio
PAGE = 4096
SEED = 20261126


async def filled(path: Path) -> dict[StreamId, list[str]]:
    """A closed database with three streams; what each of them holds."""
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await store.open()
    held: dict[StreamId, list[str]] = {}
    for name in "abc":
        stream = await create(store, name)
        held[stream.id] = [f"{name} {n} " + "x" * 300 for n in range(300)]
        for start in range(0, 300, 20):
            await append(store, stream, [encoded(text) for text in held[stream.id][start : start + 20]])
    await store.close()
    return held


async def served(path: Path, streams: dict[StreamId, list[str]]) -> dict[StreamId, list[str] | CorruptError]:
    """What a fresh store gives of each stream: its texts, or that it is damaged."""
    store = keyed(SQLiteStore(path, limits=replace(DEFAULT_LIMITS, store_readers=1)))
    found: dict[StreamId, list[str] | CorruptError] = {}
    try:
        await store.open()
        for stream in streams:
            try:
                found[stream] = await read_all(store, stream)
            except CorruptError as error:
                found[stream] = error
    except CorruptError as error:
        return dict.fromkeys(streams, error)
    finally:
        await store.close()
    return found


def page_amid(body: bytes, file: bytes) -> int:
    """Where a page begins that holds something from the second half of a stored body and nothing else has."""
    pieces = [body[at : at + 64] for at in range(len(body) // 2, len(body) - 64, 32)]
    return next(file.index(piece) for piece in pieces if file.count(piece) == 1) // PAGE * PAGE


@pytest.mark.scenario("TC-EDGE-008")
async def test_40_of_40_bits_that_flip_anywhere_are_found_and_none_is_served(tmp_path: Path) -> None:
    path, chance = tmp_path / "unbroken.db", Random(SEED)
    held = await filled(path)
    sound = await asyncio.to_thread(path.read_bytes)
    assert list(unsound_pages(path)) == []
    for number in range(40):
        place, bit = chance.randrange(len(sound)), chance.randrange(8)
        damaged = bytearray(sound)
        damaged[place] ^= 1 << bit
        await asyncio.to_thread(path.write_bytes, damaged)
        told = f"flip {number}, seed {SEED}: bit {bit} of byte {place}"
        assert list(unsound_pages(path)) == [place // PAGE + 1], told
        found = await served(path, held)
        assert [s for s, texts in found.items() if isinstance(texts, list) and texts != held[s]] == [], told


async def test_only_what_lies_on_an_overwritten_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "unbroken.db"
    held = await filled(path)
    sound = await asyncio.to_thread(path.read_bytes)
    place = page_amid(stored_body(path, sorted(held)[1], 160), sound)
    await asyncio.to_thread(path.write_bytes, sound[:place] + b"\xff" * PAGE + sound[place + PAGE :])
    found = await served(path, held)
    refused = [found[stream] for stream in held if isinstance(found[stream], CorruptError)]
    (error,) = refused
    assert isinstance(error, CorruptError)
    assert error.detail["stream"] == sorted(held)[1], "the stream is named"
    assert [found[stream] for stream in held if found[stream] == held[stream]] == [held[1], held[3]]  # type: ignore[index]


async def test_a_database_with_checksums_is_refused_where_they_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "unbroken.db"
    await filled(path)
    monkeypatch.setattr(connection, "checking_vfs", lambda: None)
    with pytest.raises(StoreUnsupportedError, match="checksums"):
        await keyed(SQLiteStore(path)).open()
    plain = keyed(SQLiteStore(tmp_path / "plain.db", durability=Durability.PROCESS))
    await plain.open()
    stream = await create(plain, "a", messages=[encoded("x")])
    await plain.close()
    monkeypatch.undo()
    await plain.open()
    assert await read_all(plain, stream.id) == ["x"], "a database without them is used as it is"
    await plain.close()


def test_the_process_keeps_its_own_default_layer() -> None:
    assert checking_vfs() == "cksmvfs"
    assert apsw.vfs_names()[0] == "unix"


def test_the_check_agrees_with_sqlites_own(tmp_path: Path) -> None:
    raw = apsw.Connection(str(tmp_path / "x.db"), vfs=checking_vfs())
    raw.reserve_bytes("main", 8)
    raw.execute("CREATE TABLE t (x)")
    raw.executemany("INSERT INTO t VALUES (?)", [(f"row {n} " * 20,) for n in range(200)])
    raw.close()
    data = (tmp_path / "x.db").read_bytes()
    pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
    assert len(pages) > 5
    assert all(map(page_is_sound, pages))
    assert not page_is_sound(pages[3][:-1] + bytes([pages[3][-1] ^ 1]))
