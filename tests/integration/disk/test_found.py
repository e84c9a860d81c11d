"""Damage is found at the start and in mid-work, reported, and costs only whoever reads what is damaged."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.builders import append, appending, create, encoded, read_all
from tests.support.commands import Commands
from tests.support.parts import running_parts
from unbroken.errors import CorruptError, StoreUnavailableError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamInfo
from unbroken.store.base import Appended, Durability
from unbroken.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio
PAGE = 4096
NAMES = ("a", "b", "next", "c")
"""Streams in the order in which they lie in the file: the page where `b` ends may hold the beginning of `next`."""


async def damaged(path: Path) -> dict[str, StreamInfo]:
    """A closed database; the page where `b` ends is overwritten. What is given is a, b and c."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    streams = {name: await create(store, name) for name in NAMES}
    for stream in streams.values():
        for number in range(100):
            await append(store, stream, [encoded(f"{stream.name} {number} " + "x" * 400)])
    await store.close()
    await asyncio.to_thread(overwrite, path, b"b 99 ")
    return {name: streams[name] for name in "abc"}


def overwrite(path: Path, text: bytes) -> int:
    """Fill the page that holds `text` with what does not belong there; its number."""
    data = bytearray(path.read_bytes())
    start = data.rindex(text) // PAGE * PAGE
    data[start : start + PAGE] = b"\xa5" * PAGE
    path.write_bytes(data)
    return start // PAGE + 1


@pytest.mark.scenario("TC-EDGE-008")
async def test_a_start_reports_damage_and_serves_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "unbroken.db"
    streams = await damaged(path)
    store = SQLiteStore(path)
    await store.open()
    assert "the database is damaged" in caplog.text
    with pytest.raises(CorruptError) as caught:
        await read_all(store, streams["b"].id)
    assert caught.value.detail["stream"] == streams["b"].id
    assert [len(await read_all(store, streams[name].id)) for name in "ac"] == [100, 100]
    await store.close()


async def test_the_look_at_the_start_is_bounded_and_finds_nothing_in_a_sound_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "unbroken.db"
    await damaged(path)
    hasty = SQLiteStore(path, limits=replace(DEFAULT_LIMITS, store_check_seconds_max=0.0))
    await hasty.open()
    await hasty.close()
    sound = SQLiteStore(tmp_path / "other.db")
    await sound.open()
    await sound.close()
    assert "damaged" not in caplog.text


@pytest.mark.scenario("TC-EDGE-008")
async def test_a_damaged_stream_harms_no_other_in_the_same_commit_and_the_server_is_not_degraded(
    tmp_path: Path,
) -> None:
    path = tmp_path / "unbroken.db"
    streams = await damaged(path)
    async with running_parts(SQLiteStore(path, durability=Durability.PROCESS)) as parts:
        health: list[object] = []
        parts.log.on_health(health.append)
        futures = [parts.log.submit(appending(stream, [encoded("more")])) for stream in streams.values()]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result) for result in results] == [Appended, CorruptError, Appended]
        assert (health, parts.log.degraded) == ([], None)
        assert len(await read_all(parts.store, streams["c"].id)) == 101


@pytest.mark.scenario("TC-EDGE-008")
@pytest.mark.parametrize("text", [b"b 99 ", b'"color":"of c"'], ids=["messages", "the list of streams"])
async def test_verify_names_the_pages_and_the_streams_that_are_damaged(tmp_path: Path, text: bytes) -> None:
    path, commands = tmp_path / "unbroken.db", Commands(tmp_path / "home", "http://127.0.0.1:9")
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    for name in NAMES:
        stream = await create(store, name, Principal(), metadata=f'{{"color":"of {name}"}}')
        for number in range(100):
            await append(store, stream, [encoded(f"{name} {number} " + "x" * 400)])
    await store.close()
    url = f"sqlite:///{path}"
    assert (await commands("verify", "--all", "--store", url)).status == 0
    page = await asyncio.to_thread(overwrite, path, text)
    told = await commands("verify", "--all", "--store", url)
    assert told.status == 4
    assert told.text.splitlines()[0] == f"page {page}: CORRUPT"
    assert "error[corrupt]" in told.err
    if text.startswith(b"b"):
        assert [line for line in told.text.splitlines() if "b" in line.split(":")[0]] == ["b: CORRUPT"]
        assert {"a: 100 messages verified", "c: 100 messages verified"} <= set(told.text.splitlines())
    listed = await commands("verify", "--all", "--store", url, "--json")
    assert listed.objects[0] == {"page": page, "ok": False}


@pytest.mark.scenario("TC-EDGE-008")
@pytest.mark.parametrize("instead", [False, True])
async def test_nothing_is_acknowledged_into_a_file_that_was_deleted_or_replaced(
    tmp_path: Path, *, instead: bool
) -> None:
    path, away = tmp_path / "unbroken.db", tmp_path / "away.db"
    store = SQLiteStore(path)
    await store.open()
    stream = await create(store, "a")
    await append(store, stream, [encoded("kept")])
    path.rename(away)
    if instead:
        path.write_bytes(b"")

    for writing in (append(store, stream, [encoded("lost")]), store.probe()):
        with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
            await writing

    assert await read_all(store, stream.id) == ["kept"]
    assert instead or not path.exists()
    away.rename(path)
    await store.probe()
    await append(store, stream, [encoded("kept too")])
    assert await read_all(store, stream.id) == ["kept", "kept too"]
    await store.close()
