"""A file beside the database is taken away while it is open: nothing is acknowledged that a restart would not find."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx2
import pytest

from tests.support.builders import append, create, encoded, read_all
from tests.support.commands import Commands
from unbroken.errors import StoreUnavailableError
from unbroken.messages import StreamId
from unbroken.store.sqlite import SQLiteStore
from unbroken.testing import TestedServer

pytestmark = pytest.mark.anyio

SECONDS_MAX = 60
POLL_SECONDS = 0.05


async def after_a_kill(path: Path, stream: StreamId) -> list[str]:
    """What a start finds if the process is killed now: what the names lead to, and nothing that is only held open."""
    left = path.parent / "left"
    shutil.rmtree(left, ignore_errors=True)
    left.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copyfile(file, left / file.name)
    store = SQLiteStore(left / path.name)
    await store.open()
    try:
        return await read_all(store, stream)
    finally:
        await store.close()


@pytest.mark.scenario("TC-EDGE-008")
@pytest.mark.parametrize("ends", [("-wal",), ("-wal", "-shm")], ids=["the log", "the log and its index"])
async def test_what_a_deleted_log_held_is_brought_into_the_database_and_nothing_more_is_acknowledged(
    tmp_path: Path, ends: tuple[str, ...]
) -> None:
    path = tmp_path / "unbroken.db"
    store = SQLiteStore(path)
    await store.open()
    stream = await create(store, "a")
    await append(store, stream, [encoded("kept")])
    for end in ends:
        path.with_name(path.name + end).unlink()

    for writing in (append(store, stream, [encoded("lost")]), store.probe()):
        with pytest.raises(StoreUnavailableError, match=r"unbroken\.db-wal was deleted .* is in the database file now"):
            await writing

    assert await read_all(store, stream.id) == ["kept"]
    assert await after_a_kill(path, stream.id) == ["kept"]
    await store.close()
    again = SQLiteStore(path)
    await again.open()
    await append(again, stream, [encoded("kept too")])
    assert await read_all(again, stream.id) == ["kept", "kept too"]
    await again.close()


@pytest.mark.scenario("TC-EDGE-008")
async def test_a_log_of_somebody_else_is_neither_written_past_nor_read_past_nor_deleted(tmp_path: Path) -> None:
    path, log = tmp_path / "unbroken.db", tmp_path / "unbroken.db-wal"
    store = SQLiteStore(path)
    await store.open()
    stream = await create(store, "a")
    await append(store, stream, [encoded("kept")])
    log.rename(tmp_path / "away")
    shutil.copyfile(tmp_path / "away", log)
    before = path.read_bytes(), log.read_bytes()

    with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
        await append(store, stream, [encoded("lost")])
    with pytest.raises(StoreUnavailableError, match="another log"):
        await read_all(store, stream.id)

    await store.close()
    assert (path.read_bytes(), log.read_bytes()) == before
    again = SQLiteStore(path)
    await again.open()
    assert await read_all(again, stream.id) == ["kept"]
    await again.close()


async def test_a_log_that_comes_back_is_used_again(tmp_path: Path) -> None:
    path, log = tmp_path / "unbroken.db", tmp_path / "unbroken.db-wal"
    store = SQLiteStore(path)
    await store.open()
    stream = await create(store, "a")
    log.rename(tmp_path / "away")
    with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
        await append(store, stream, [encoded("no")])
    (tmp_path / "away").rename(log)
    await append(store, stream, [encoded("yes")])
    assert await after_a_kill(path, stream.id) == ["yes"]
    await store.close()


async def test_a_database_behind_a_link_has_its_log_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "true.db", tmp_path / "unbroken.db"
    link.symlink_to(path)
    path.touch()
    store = SQLiteStore(link)
    await store.open()
    stream = await create(store, "a")
    await append(store, stream, [encoded("kept")])
    path.with_name("true.db-wal").unlink()
    with pytest.raises(StoreUnavailableError, match=r"true\.db-wal was deleted"):
        await append(store, stream, [encoded("lost")])
    assert await after_a_kill(path, stream.id) == ["kept"]
    await store.close()


@pytest.mark.parametrize("file", [False, True], ids=["gone", "a file"])
async def test_a_directory_that_is_gone_makes_the_store_unavailable_until_it_is_back(
    tmp_path: Path, *, file: bool
) -> None:
    directory, away = tmp_path / "data", tmp_path / "away"
    store = SQLiteStore(directory / "unbroken.db")
    await store.open()
    stream = await create(store, "a")
    await append(store, stream, [encoded("kept")])
    directory.rename(away)
    if file:
        directory.touch()

    for writing in (append(store, stream, [encoded("lost")]), store.probe()):
        with pytest.raises(StoreUnavailableError):
            await writing
    assert await read_all(store, stream.id) == ["kept"]

    directory.unlink(missing_ok=True)
    away.rename(directory)
    await append(store, stream, [encoded("kept too")])
    assert await read_all(store, stream.id) == ["kept", "kept too"]
    await store.close()


async def test_a_server_whose_directory_is_removed_says_so_stays_and_serves_what_it_has(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    server = TestedServer(directory)
    await asyncio.to_thread(server.start)
    try:
        async with httpx2.AsyncClient(base_url=server.url, timeout=SECONDS_MAX) as http:
            body = {"messages": [{"text": "kept"}]}
            assert (await http.put("/v1/streams/a", json={})).status_code == 201
            assert (await http.post("/v1/messages/a", json=body)).status_code == 200
            await asyncio.to_thread(shutil.rmtree, directory)
            assert await unready(http) == "store_unavailable"
            refused = await http.post("/v1/messages/a", json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            read = await http.get("/v1/messages/a")
            assert [message["text"] for message in read.json()["messages"]] == ["kept"]
            assert (await http.get("/livez")).status_code == 200
        await asyncio.to_thread(server.stop)
        assert "Traceback" not in server.log
    finally:
        await asyncio.to_thread(server.kill)


async def unready(http: httpx2.AsyncClient) -> str:
    """The first reason for not being ready, once there is one."""
    async with asyncio.timeout(SECONDS_MAX):
        while (answer := await http.get("/readyz")).status_code == 200:
            await asyncio.sleep(POLL_SECONDS)
    code: str = answer.json()["reasons"][0]["code"]
    return code


@pytest.mark.scenario("TC-EDGE-008")
async def test_a_server_whose_log_and_index_go_while_another_process_writes_loses_nothing_it_acknowledged(
    tmp_path: Path,
) -> None:
    server = TestedServer(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        async with httpx2.AsyncClient(base_url=server.url, timeout=SECONDS_MAX) as http:
            assert (await http.put("/v1/streams/a", json={})).status_code == 201
            acknowledged: list[str] = []

            async def append_one() -> int:
                text = f"{len(acknowledged)}"
                answer = await http.post("/v1/messages/a", json={"messages": [{"text": text}]})
                if answer.status_code == 200:
                    acknowledged.append(text)
                return answer.status_code

            assert await append_one() == 200
            (tmp_path / "unbroken.db-shm").unlink()
            commands = Commands(tmp_path / "home", server.url)
            made = await commands("token", "create", "--store", f"sqlite:///{tmp_path / 'unbroken.db'}")
            assert made.status == 0, made.err
            assert await append_one() == 503
            assert await unready(http) == "store_unavailable"
            await asyncio.to_thread(server.restart)
            assert await append_one() == 200
            (tmp_path / "unbroken.db-wal").unlink()
            assert await unready(http) == "store_unavailable"
            assert await append_one() == 503
            await asyncio.to_thread(server.restart)
            read = await http.get("/v1/messages/a")
            assert [message["text"] for message in read.json()["messages"]] == acknowledged
            assert await append_one() == 200
    finally:
        await asyncio.to_thread(server.kill)
