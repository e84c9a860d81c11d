"""Erasure: nobody reads it any more, no file holds it, the hash chain holds; also when a crash comes in between."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx2
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.integration.secrets.conftest import files_with
from tests.support.canary import plant
from tests.support.database import connect as connect_to
from tests.support.parts import ALICE, BOB, Parts, running_parts, texts
from tests.support.server import ServerProcess
from unbroken import Client
from unbroken.cli.app import execute
from unbroken.clock import SystemClock
from unbroken.erasure import Eraser
from unbroken.errors import CorruptError, ErasedError, ForbiddenError, NotFoundError, StoreFullError
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, Seq, StreamInfo
from unbroken.observe.audit import Audit
from unbroken.requests import AppendOptions, NewStream
from unbroken.retention import Retention
from unbroken.runs.files import NewFile, keep
from unbroken.store.base import (
    Created,
    CreateStream,
    Done,
    Durability,
    Fork,
    Producer,
    StreamFilter,
    StreamingMessageRepository,
    Trim,
)
from unbroken.store.keys import MasterKeys, new_master_key
from unbroken.store.memory import MemoryStore
from unbroken.store.operations import EraseStream
from unbroken.store.sealing import Keyring
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.connection import Connection
from unbroken.store.sqlite.salvage import Means, salvage

pytestmark = pytest.mark.anyio

CANARY = plant("canary-" + "9d1c" * 6)
LIMITS = replace(DEFAULT_LIMITS, store_ballast_bytes=4096, compact_chunks_min=2, delete_step_chunks_max=3)
KEY = new_master_key()
PATHS = [
    "/v1/messages/a",
    "/v1/messages/a?live=sse",
    "/v1/messages/a?live=long-poll",
    "/v1/content/a",
    "/v1/stream/a",
]
STORES = ["memory", "sqlite", "encrypted"]


def make(kind: str, directory: Path) -> StreamingMessageRepository:
    if kind == "memory":
        return MemoryStore(limits=LIMITS)
    store = SQLiteStore(directory / "x.db", durability=Durability.PROCESS, limits=LIMITS)
    if kind == "encrypted":
        store.encrypt_with(MasterKeys.parse(KEY))
    return store


def eraser(parts: Parts, path: Path | None = None) -> Eraser:
    audit = Audit(SystemClock(), DEFAULT_LIMITS)
    if path is not None:
        audit.write_to(path)
    return Eraser(parts.streams, audit)


async def fill(parts: Parts, name: str, principal: Principal = ALICE) -> StreamInfo:
    new = NewStream(session="s", metadata=f'{{"m":"{CANARY}"}}', run=f'{{"arguments":"{CANARY}"}}')
    stream = (await parts.streams.create(principal, name, new)).stream
    await parts.streams.put_session(principal, "s", metadata=f'{{"m":"{CANARY}"}}')
    for number in range(9):
        await parts.streams.append_durably(stream, texts(*[f"{number} {CANARY}" * 200] * 3))
        if number == 5:
            await parts.store.compact(stream.id)
    return stream


@pytest.mark.parametrize("kind", STORES)
async def test_nothing_of_a_person_is_left_and_the_chain_holds(kind: str, tmp_path: Path) -> None:
    async with running_parts(make(kind, tmp_path), limits=LIMITS) as parts:
        first, second = await fill(parts, "a"), await fill(parts, "b")
        other = await fill(parts, "a", BOB)
        checked = await parts.streams.verify(first)
        await parts.streams.delete(second)
        third = await fill(parts, "c")
        found = await eraser(parts, tmp_path / "audit.jsonl").owner(ALICE, "asked by mail")
        assert (found.streams, found.sessions) == (2, 1)
        for stream in (first, third):
            info = await parts.streams.get(ALICE, stream.name, may=Verb.READ)
            assert (info.metadata, info.run, json.loads(info.erased or "")["reason"]) == ("{}", None, "asked by mail")
            with pytest.raises(ErasedError):
                await parts.streams.read(info, Seq(0))
            with pytest.raises(ErasedError):
                parts.streams.position(info, "start")
            with pytest.raises(ErasedError):
                await parts.hub.follow(info, Seq(0))
            result = await parts.streams.verify(info)
            assert (result.bad, result.erased, result.hash) == (
                None,
                27,
                checked.hash if stream is first else result.hash,
            )
        assert (await parts.streams.read_session(ALICE, "s", limit=100, page=None)).items == ()
        assert (await parts.streams.get_session(ALICE, "s", may=Verb.READ)).metadata == "{}"
        assert await eraser(parts).owner(ALICE, "") == replace(found, streams=0, sessions=0)
        assert (await parts.streams.read(other, Seq(0))).batches, "another owner's stream of the same name is untouched"
        await eraser(parts).owner(BOB, "")
        assert files_with(tmp_path, CANARY) == []
    assert files_with(tmp_path, CANARY) == []
    (entry,) = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (entry["event"], entry["owner"], entry["streams"], entry["by"]) == ("erased", "alice", 2, "alice")


async def test_no_page_keeps_copies_of_rows_that_moved_to_another(tmp_path: Path) -> None:
    """SQLite moves rows between pages and leaves what they were in the part of a page that is not used."""
    limits = replace(LIMITS, store_wal_bytes=4096)  # another thread copies the log meanwhile
    store = SQLiteStore(tmp_path / "x.db", durability=Durability.PROCESS, limits=limits)
    async with running_parts(store, limits=limits) as parts:
        names = [(principal, name) for name in "abc" for principal in (ALICE, BOB)]
        streams = [(await parts.streams.create(*one, NewStream())).stream for one in names]
        for number in range(1, 241):
            stream = streams[(number - 1) % len(streams)]
            mark = f"{stream.owner[:2]}{number:06}"
            producer = AppendOptions(producer=Producer(id=mark, epoch=1, seq=0))
            message = NewMessage(kind="k", text=mark * (1 + number * 37 % 300))
            await parts.streams.append_durably(stream, [message], producer)
        await eraser(parts).owner(ALICE, "")
    assert files_with(tmp_path, "bo0000") == ["x.db"]
    assert files_with(tmp_path, "al0000") == []


async def test_in_a_file_that_is_too_large_to_be_written_anew_rows_are_overwritten_where_they_were(
    tmp_path: Path,
) -> None:
    limits = replace(LIMITS, erase_rewrite_bytes_max=0, compact_chunks_min=1_000)
    store = SQLiteStore(tmp_path / "x.db", durability=Durability.PROCESS, limits=limits)
    async with running_parts(store, limits=limits) as parts:
        for number in range(20):  # of both on each page, so that none of them is given back whole
            for principal, text in ((ALICE, CANARY), (BOB, "of-bob")):
                stream = (await parts.streams.create(principal, f"s{number}", NewStream())).stream
                await parts.streams.append_durably(stream, texts(text))
        assert files_with(tmp_path, CANARY)
        await eraser(parts).owner(ALICE, "")
        assert files_with(tmp_path, CANARY) == []
        assert files_with(tmp_path, "of-bob")
    assert files_with(tmp_path, CANARY) == []


@pytest.mark.parametrize("kind", STORES)
async def test_what_was_deleted_before_is_destroyed_too(kind: str, tmp_path: Path) -> None:
    async with running_parts(make(kind, tmp_path), limits=LIMITS) as parts:
        await parts.streams.delete(await fill(parts, "a"))
        await parts.streams.delete_session(ALICE, "s")
        found = await eraser(parts).owner(ALICE, "asked by mail")
        assert (found.streams, found.sessions) == (0, 0)
        assert files_with(tmp_path, CANARY) == [], "while the server runs, its log is empty too"


@pytest.mark.parametrize("kind", STORES)
async def test_a_run_that_has_not_noticed_its_erasure_leaves_no_file(kind: str, tmp_path: Path) -> None:
    async def once(work: Callable[[], Awaitable[Any]]) -> Any:
        return await work()

    async with running_parts(make(kind, tmp_path), limits=LIMITS) as parts:
        run = (await parts.streams.create(ALICE, "r", NewStream(kind="task", run='{"type":"task","name":"x"}'))).stream
        await eraser(parts).stream(ALICE, run, "")
        file = NewFile.of(CANARY.encode(), "f.txt")
        with pytest.raises(ErasedError):
            await keep(parts.streams, parts.states, run, file, once)
        await parts.streams.delete(run)
        with pytest.raises(NotFoundError):
            await keep(parts.streams, parts.states, run, file, once)
        found = await parts.streams.list(ALICE, StreamFilter(prefix="r"), limit=9, page=None)
        assert found.items == ()


@pytest.mark.parametrize("kind", STORES)
async def test_what_forks_share_with_an_erased_stream_is_erased_in_them_and_their_own_is_not(
    kind: str, tmp_path: Path
) -> None:
    async with running_parts(make(kind, tmp_path), limits=LIMITS) as parts:
        source = await parts.stream("source")
        for number in range(4):
            await parts.streams.append_durably(source, texts(f"{number} {CANARY}"))
        forked = NewStream(fork=Fork(source.id, Seq(3)), messages=tuple(texts("of the fork")))
        fork = (await parts.streams.create(ALICE, "fork", forked)).stream
        again = NewStream(fork=Fork(fork.id, Seq(2)), messages=tuple(texts("of the other")))
        other = (await parts.streams.create(ALICE, "other", again)).stream
        salts = {info.name: info.salts for info in (source, fork, other)}
        source = await parts.streams.get(ALICE, "source", may=Verb.READ)
        await eraser(parts).stream(ALICE, source, "")
        for name, erased, own in (("fork", 3, "of the fork"), ("other", 2, "of the other")):
            info = await parts.streams.get(ALICE, name, may=Verb.READ)
            result = await parts.streams.verify(info)
            assert (result.bad, result.erased) == (None, erased)
            body = b",".join(batch.body for batch in (await parts.streams.read(info, Seq(0))).batches)
            assert own.encode() in body
            assert CANARY.encode() not in body
            assert info.salts != salts[name], "nobody can guess what was there"
        assert files_with(tmp_path, CANARY) == []


@pytest.mark.parametrize("kind", STORES)
async def test_what_a_deleted_source_keeps_for_erased_forks_alone_is_erased_with_the_last_of_them(
    kind: str, tmp_path: Path
) -> None:
    async with running_parts(make(kind, tmp_path), limits=LIMITS) as parts:
        root = (await parts.streams.create(ALICE, "root", NewStream(metadata=f'{{"m":"{CANARY}"}}'))).stream
        await parts.streams.append_durably(root, texts(f"1 {CANARY}", f"2 {CANARY}"))
        middle = await parts.stream("middle", NewStream(fork=Fork(root.id, Seq(1)), messages=tuple(texts(CANARY))))
        forks = [await parts.stream(name, NewStream(fork=Fork(middle.id, Seq(2)))) for name in ("first", "second")]
        await parts.streams.delete(root)
        await parts.streams.delete(middle)
        await eraser(parts).stream(ALICE, forks[0], "")
        body = b",".join(batch.body for batch in (await parts.streams.read(forks[1], Seq(0))).batches)
        assert body.count(CANARY.encode()) == 2, "the other fork still has it"
        deep = await parts.stream("deep", NewStream(fork=Fork(forks[1].id, Seq(1))))
        await eraser(parts).stream(ALICE, forks[1], "")
        assert CANARY.encode() in (await parts.streams.read(deep, Seq(0))).batches[0].body, "and so has a fork of it"
        assert len(files_with(tmp_path, CANARY)) == (kind == "sqlite")
        await eraser(parts).stream(ALICE, deep, "")
        for fork in (*forks, deep):
            info = await parts.streams.get(ALICE, fork.name, may=Verb.READ)
            assert ((await parts.streams.verify(info)).bad, info.hash) == (None, fork.hash)
        assert (await parts.store.get_by_id(root.id) or root).erased is not None
        assert files_with(tmp_path, CANARY) == []


@pytest.mark.parametrize("youngest", ["root", "leaf"])
async def test_forks_that_somebody_has_made_a_circle_of_are_corrupt_and_everything_else_is_erased(
    youngest: str, tmp_path: Path
) -> None:
    """What is to be erased, trimmed and deleted is the last of three streams, each a fork of the one before."""
    async with running_parts(make("sqlite", tmp_path), limits=LIMITS) as parts, asyncio.timeout(60):
        streams = {"root": await parts.stream("root", NewStream(messages=tuple(texts("1", "2"))))}
        streams["middle"] = await parts.stream("middle", NewStream(fork=Fork(streams["root"].id, Seq(1))))
        leaf = streams["leaf"] = await parts.stream("leaf", NewStream(fork=Fork(streams["middle"].id, Seq(1))))
        for name in ("root", "middle"):
            await parts.streams.delete(streams[name])
        await fill(parts, "other")
    with closing(connect_to(tmp_path / "x.db")) as raw:
        edited = (streams["middle" if youngest == "root" else "leaf"].id, streams[youngest].id)
        raw.execute("UPDATE stream SET forked_from = ?, fork_seq = 1 WHERE id = ?", edited)
    async with running_parts(make("sqlite", tmp_path), limits=LIMITS) as parts, asyncio.timeout(60):
        with pytest.raises(CorruptError, match=r"which is no older"):
            await eraser(parts).stream(ALICE, leaf, "")
        with pytest.raises(CorruptError):
            await eraser(parts).owner(ALICE, "")
        found = {name: await parts.streams.get(ALICE, name, may=Verb.READ) for name in ("leaf", "other")}
        assert [info.erased is None for info in found.values()] == [True, False]
        assert files_with(tmp_path, CANARY) == []
        trim = Trim(stream=leaf.id, epoch=leaf.epoch, first=Seq(2))
        (trimmed,) = await parts.store.write([trim])
        assert isinstance(trimmed, Done), "what was shared keeps its space, and nothing else"
        await parts.streams.delete(leaf)


async def test_a_salvaged_database_has_no_circle_of_forks(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for directory in (old, new):
        directory.mkdir()
    async with running_parts(make("sqlite", old), limits=LIMITS) as parts:
        await fill(parts, "a")
    with closing(connect_to(old / "x.db")) as raw:
        raw.execute("UPDATE stream SET forked_from = id")
    assert (await asyncio.to_thread(salvage, old / "x.db", new / "x.db", LIMITS)).lost == ()
    async with running_parts(make("sqlite", new), limits=LIMITS) as parts:
        assert (await parts.streams.verify(await parts.streams.get(ALICE, "a", may=Verb.READ))).bad is None
        await eraser(parts).owner(ALICE, "")
    assert files_with(new, CANARY) == []


async def test_a_stream_with_forks_of_forks_of_forks_without_end_is_erased(tmp_path: Path) -> None:
    async with running_parts(make("memory", tmp_path), limits=LIMITS) as parts:
        source = first = await parts.stream("0", NewStream(messages=tuple(texts(CANARY))))
        for number in range(1, sys.getrecursionlimit() + 1):
            create = CreateStream(principal=ALICE, name=str(number), now_ms=0, fork=Fork(source.id, Seq(1)))
            (created,) = await parts.store.write([create])
            assert isinstance(created, Created)
            source = created.stream
        await eraser(parts).stream(ALICE, first, "")
        assert CANARY.encode() not in (await parts.streams.read(source, Seq(0))).batches[0].body


async def test_the_key_of_an_erased_stream_is_destroyed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with running_parts(make("encrypted", tmp_path), limits=LIMITS) as parts:
        stream = await fill(parts, "a")
        with closing(connect_to(path)) as raw:
            (wrapped,) = next(iter(raw.execute("SELECT wrapped FROM stream_key WHERE stream_id = ?", (stream.id,))))
        await eraser(parts).stream(ALICE, stream, "")
        assert wrapped not in path.read_bytes() + path.with_name("x.db-wal").read_bytes()


async def test_erasing_a_fork_leaves_its_source_readable(tmp_path: Path) -> None:
    async with running_parts(make("encrypted", tmp_path), limits=LIMITS) as parts:
        source = await parts.stream("source")
        await parts.streams.append_durably(source, texts("stays", "stays too"))
        forked = NewStream(fork=Fork(source.id, Seq(1)), messages=tuple(texts(CANARY)))
        fork = (await parts.streams.create(ALICE, "fork", forked)).stream
        await eraser(parts).stream(ALICE, fork, "")
        assert (await parts.streams.verify(source)).erased == 0
        result = await parts.streams.verify(await parts.streams.get(ALICE, "fork", may=Verb.READ))
        assert (result.bad, result.erased) == (None, 1)
        assert files_with(tmp_path, CANARY) == []


@pytest.mark.parametrize("kind", ["sqlite", "encrypted"])
async def test_what_a_crash_left_undone_is_done_by_the_next_start(kind: str, tmp_path: Path) -> None:
    async with running_parts(make(kind, tmp_path), limits=LIMITS) as parts:
        stream = await fill(parts, "a")
        erase = EraseStream(stream=stream.id, epoch=stream.epoch, now_ms=1, tombstone='{"at":1,"by":"x","reason":""}')
        await parts.log.write(erase)
        assert await parts.store.scrub(), "one step, and then the process is gone"
    async with running_parts(make(kind, tmp_path), limits=LIMITS) as parts:
        with pytest.raises(ErasedError):
            await parts.streams.read(await parts.streams.get(ALICE, "a", may=Verb.READ), Seq(0))
        await parts.streams.put_session(ALICE, "s", metadata="{}")
        steps = 0
        while await parts.store.scrub():
            steps += 1
        assert steps > 3
        assert (await parts.streams.verify(await parts.streams.get(ALICE, "a", may=Verb.READ))).erased == 27
    assert files_with(tmp_path, CANARY) == []


@pytest.mark.parametrize("kind", STORES[1:])
async def test_what_a_crash_left_undone_is_done_after_a_salvage_too(kind: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for directory in (old, new):
        directory.mkdir()
    async with running_parts(make(kind, old), limits=LIMITS) as parts:
        stream, kept = await fill(parts, "a"), await parts.stream("kept", NewStream(messages=tuple(texts("kept"))))
        await parts.streams.put_session(ALICE, "s", metadata="{}")
        erase = EraseStream(stream=stream.id, epoch=stream.epoch, now_ms=1, tombstone='{"at":1,"by":"x","reason":""}')
        await parts.log.write(erase)
    means = Means(ring=Keyring(MasterKeys.parse(KEY)) if kind == "encrypted" else None)
    made = await asyncio.to_thread(salvage, old / "x.db", new / "x.db", LIMITS, means=means)
    assert made.lost == ()
    async with running_parts(make(kind, new), limits=LIMITS) as parts:
        await Retention(parts.streams).scrub()
        assert (await parts.streams.verify(await parts.streams.get(ALICE, "a", may=Verb.READ))).erased == 27
        assert (await parts.streams.read(await parts.store.get_by_id(kept.id) or kept, Seq(0))).batches
    assert files_with(new, CANARY) == []


async def test_an_erasure_for_which_there_is_no_room_is_done_when_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_parts(make("sqlite", tmp_path), limits=LIMITS) as parts:
        stream = await fill(parts, "a")
        await parts.streams.put_session(ALICE, "s", metadata="{}")
        with monkeypatch.context() as full:
            full.setattr(Connection, "rewrite", Mock(side_effect=StoreFullError("no room")))
            with pytest.raises(StoreFullError):
                await eraser(parts).stream(ALICE, stream, "")
        with pytest.raises(ErasedError):
            await parts.streams.read(await parts.streams.get(ALICE, "a", may=Verb.READ), Seq(0))
        await parts.streams.create(ALICE, "b", NewStream())
        assert await parts.store.scrub(), "it is not forgotten"
        assert not await parts.store.scrub()
        assert files_with(tmp_path, CANARY) == []


async def test_only_the_owner_erases_everything(tmp_path: Path) -> None:
    guest = Principal("local", "alice", grants=(Grant("", frozenset(Verb), prefix=True),))
    async with running_parts(make("memory", tmp_path), limits=LIMITS) as parts:
        await fill(parts, "a")
        with pytest.raises(ForbiddenError):
            await eraser(parts).owner(guest, "")


async def test_every_face_says_that_it_was_erased_and_live_viewers_are_told(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    async with (
        server,
        httpx2.AsyncClient(base_url=server.url) as http,
        Client(server.url) as client,
        asyncio.timeout(90),
    ):
        await client.create("a")
        await client.append("a", CANARY)
        follow = client.follow("a")
        assert (await anext(follow)).message.text == CANARY
        address = f"{server.url.replace('http', 'ws')}/v1/ws"
        async with (
            connect(address, subprotocols=[Subprotocol("unbroken.v1")]) as socket,
            http.stream("GET", "/v1/messages/a", params={"live": "sse"}) as events,
        ):
            lines = events.aiter_lines()
            while CANARY not in await anext(lines):
                pass
            await socket.send(json.dumps({"type": "subscribe", "id": 1, "stream": "a", "after": "start"}))
            while CANARY not in str(await socket.recv()):
                pass
            erased = await http.post("/v1/erasures", json={"stream": "a", "reason": "asked"})
            assert erased.json() == {"streams": 1, "sessions": 0}
            with pytest.raises(ErasedError):
                await anext(follow)
            while '"erased"' not in str(await socket.recv()):
                pass
            while '"erased"' not in await anext(lines):
                pass
        for path in (
            "/v1/messages/a",
            "/v1/messages/a?live=sse",
            "/v1/messages/a?live=long-poll",
            "/v1/content/a",
            "/v1/stream/a",
        ):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (410, "erased"), path
        view = (await http.get("/v1/streams/a")).json()
        assert (view["erased"]["by"], view["state"], view["reason"]) == ("local", "cancelled", {"cause": "erased"})
        verified = (await http.get("/v1/verify/a")).json()
        assert (verified["ok"], verified["erased"]) == (True, 1)
        assert (await http.post("/v1/messages/a", json={"messages": [{"text": "x"}]})).json()["code"] == "ended"
        assert files_with(tmp_path, CANARY) == []
    assert "erased" in server.output


async def test_the_operator_erases_a_person_beside_a_running_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "data"
    place.mkdir()
    key = tmp_path / "key"
    key.write_text(KEY, encoding="ascii")
    server = ServerProcess(place, arguments=["--encryption-key-file", str(key)])
    database = f"sqlite:///{place / 'unbroken.db'}"
    verb = ["erase", "--store", database, "--encryption-key-file", str(key), "--audit", str(tmp_path / "audit.jsonl")]
    async with server, Client(server.url) as client, asyncio.timeout(90):
        for name in ("a", "b"):
            await client.create(name, metadata={"m": CANARY})
            await client.append(name, CANARY)
        follow = client.follow("a")
        assert (await anext(follow)).message.text == CANARY
        assert await asyncio.to_thread(execute, ["erase", "--stream", "b", "--server", server.url]) == 0
        assert await asyncio.to_thread(execute, [*verb, "--owner", "local", "--reason", "asked"]) == 0
        with pytest.raises(ErasedError):
            await anext(follow)
        said = (await client.state("a")).erased
        assert isinstance(said, msgspec.Raw)
        assert json.loads(bytes(said))["by"] == "operator"
        assert (await client.verify("a")).erased == 1
        for wrong in (["erase"], ["erase", "--owner", "local"], [*verb, "--stream", "a"]):
            assert await asyncio.to_thread(execute, wrong) == 2
    assert "1 streams and 0 sessions erased" in capsys.readouterr().out
    (entry,) = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (entry["by"], entry["reason"], entry["streams"]) == ("operator", "asked", 1)
    assert files_with(tmp_path, CANARY) == []
