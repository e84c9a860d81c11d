"""From a damaged file comes everything that verifies, and the list of what was lost is exactly what was planted."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.integration.disk.works import sound
from tests.support.builders import ALICE, BOB, NOW_MS, append, build_world, create, encoded, token
from tests.support.commands import Commands
from tests.support.database import connect
from unbroken.errors import InUseError, StoreUnsupportedError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Message, Seq, StreamId, StreamState, decode_messages
from unbroken.store.base import Close, Durability, Fork, Producer, StreamFilter
from unbroken.store.chunks import ChunkRow, decode_chunk, encode_chunk
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.salvage import Lost, Means, Salvage, salvage
from unbroken.store.sqlite.salvage.pages import PageFile
from unbroken.store.tokens import Proof, Revocation

pytestmark = pytest.mark.anyio
PAGE = 4096
NO_CHUNK = "no chunk that verifies holds them"
SEED = 20261126


@dataclass(slots=True)
class Planted:
    """A closed database: what each stream held, and the chunks that one page holds whole."""

    path: Path
    texts: dict[str, list[str]] = field(default_factory=dict)


async def planted(path: Path, *, streams: int = 4, chunks: int = 40) -> Planted:
    """Streams of chunks of three messages each; each chunk is large enough to have pages of its own."""
    made = Planted(path)
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    for name in [f"s/{number}" for number in range(streams)]:
        stream = await create(store, name, session="work", metadata=f'{{"name":"{name}"}}')
        made.texts[name] = []
        for chunk in range(chunks):
            texts = [f"{name} {chunk}.{part} " + "x" * 1_800 for part in range(3)]
            await append(store, stream, list(map(encoded, texts)), producer=Producer("p", 0, chunk))
            made.texts[name] += texts
    ended = await create(store, "ended", BOB)
    await append(store, ended, (), close=Close(StreamState.COMPLETED))
    await store.close()
    return made


def damage(path: Path, *pages: int) -> None:
    """Overwrite whole pages."""
    data = bytearray(path.read_bytes())
    for page in pages:
        data[(page - 1) * PAGE : page * PAGE] = b"\xa5" * PAGE
    path.write_bytes(data)


def page_of(path: Path, text: bytes) -> int:
    return path.read_bytes().index(text) // PAGE + 1


def root_of(path: Path, name: str) -> int:
    """The page where the tree of a table or an index begins."""
    database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    try:
        found: int = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0]
        return found
    finally:
        database.close()


def pages_of(path: Path, table: str) -> list[int]:
    """The pages that belong to a table, by the map of pages."""
    root, pages = root_of(path, table), PageFile(path)
    try:
        return [number for number in range(1, pages.count + 1) if pages.owner(number) == root]
    finally:
        pages.close()


async def held(path: Path, principal: Principal = ALICE) -> dict[str, list[Message]]:
    """All messages of all streams of a principal."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    found: dict[str, list[Message]] = {}
    for info in (await store.list_streams(principal, StreamFilter(), limit=1_000, after=None)).items:
        found[info.name] = []
        after = Seq(info.first - 1)
        while after < info.head:
            page = await store.read(info.id, after, messages_max=1_000, bytes_max=1 << 20)
            for batch in page.batches:
                found[info.name] += decode_messages(batch.body)
                after = batch.last
    await store.close()
    return found


def brought_back(made: Planted, target: Path) -> Salvage:
    return salvage(made.path, target, DEFAULT_LIMITS)


async def check(made: Planted, target: Path, result: Salvage) -> None:
    """What is there is right and in its place; what is not there is in the list, and nothing else is."""
    found = await held(target)
    listed = {
        (lost.stream, seq)
        for lost in result.lost
        if lost.first is not None and lost.last is not None
        for seq in range(lost.first, lost.last + 1)
    }
    absent: set[tuple[str | None, int]] = set()
    for name, texts in made.texts.items():
        assert len(found[name]) == len(texts)
        for seq, (message, text) in enumerate(zip(found[name], texts, strict=True), 1):
            if message.kind == "lost":
                absent.add((name, seq))
            else:
                assert message.text == text
    assert absent == listed
    assert result.messages == sum(map(len, made.texts.values())) - len(absent)
    sound(target)


@pytest.mark.scenario("TC-EDGE-008")
async def test_the_list_of_what_was_lost_is_exactly_what_was_planted(tmp_path: Path) -> None:
    made, target = await planted(tmp_path / "bad.db"), tmp_path / "good.db"
    lost = [("s/0", 0), ("s/1", 7), ("s/1", 8), ("s/2", 39)]
    pages = [page_of(made.path, f"{name} {chunk}.2".encode()) for name, chunk in lost]
    damage(made.path, *pages)
    result = brought_back(made, target)
    assert sorted(result.lost, key=lambda one: (one.stream or "", one.first or 0)) == [
        Lost(NO_CHUNK, "s/0", 1, 3),
        Lost(NO_CHUNK, "s/1", 22, 27),
        Lost(NO_CHUNK, "s/2", 118, 120),
    ]
    assert (result.streams, result.messages) == (5, 4 * 120 - 12)
    await check(made, target, result)


@pytest.mark.scenario("TC-EDGE-008")
@pytest.mark.parametrize("what", ["page 1", "the root of the chunks", "the map", "the root of an index", "nothing"])
async def test_what_only_leads_to_messages_can_be_destroyed_without_losing_one(tmp_path: Path, what: str) -> None:
    streams, chunks = (60, 2) if what == "the map" else (4, 40)  # of many streams not all are on the table's first page
    made, target = await planted(tmp_path / "bad.db", streams=streams, chunks=chunks), tmp_path / "good.db"
    roots = {"the root of the chunks": "chunk", "the root of an index": "stream_by_owner"}
    page = root_of(made.path, roots[what]) if what in roots else {"page 1": 1, "the map": 2, "nothing": 0}[what]
    if page:
        damage(made.path, page)
    result = brought_back(made, target)
    assert [lost for lost in result.lost if lost.first is not None] == []
    assert result.messages == streams * chunks * 3
    await check(made, target, result)


async def test_20_random_pages_cost_what_lies_on_them_and_the_list_says_so(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    made, target = await planted(tmp_path / "bad.db", streams=8, chunks=30), tmp_path / "good.db"
    chunks = pages_of(made.path, "chunk")
    count = made.path.stat().st_size // PAGE
    overwritten = chance.sample(range(20, count), 20)
    damage(made.path, *overwritten)
    result = brought_back(made, target)
    assert len(chunks) > 20
    assert 0 < len([lost for lost in result.lost if lost.first is not None]) <= 20, f"seed {SEED}"
    await check(made, target, result)


async def test_streams_whose_row_is_lost_keep_their_messages_under_a_name_of_their_own(tmp_path: Path) -> None:
    made, target = await planted(tmp_path / "bad.db"), tmp_path / "good.db"
    damage(made.path, root_of(made.path, "stream"))  # the only page of the table of streams
    result = brought_back(made, target)
    found = await held(target, Principal())
    assert sorted(found) == [f"salvaged/{number}" for number in range(1, 5)]
    for number, texts in enumerate(made.texts.values(), 1):
        assert [message.text for message in found[f"salvaged/{number}"]] == texts
    told = [lost.stream for lost in result.lost if "its name, owner and state" in lost.reason]
    assert sorted(map(str, told)) == sorted(found)
    sound(target)


async def test_an_owner_that_was_changed_by_a_bit_is_not_believed(tmp_path: Path) -> None:
    made, target = await planted(tmp_path / "bad.db"), tmp_path / "good.db"
    data = bytearray(made.path.read_bytes())
    data[data.index(b"alice", (root_of(made.path, "stream") - 1) * PAGE) + 4] ^= 1
    made.path.write_bytes(data)
    result = brought_back(made, target)
    assert await held(target, Principal("acme", "alicd")) == {}
    assert sorted(await held(target, Principal())) == [f"salvaged/{number}" for number in range(1, 5)]
    assert result.messages == 4 * 120
    sound(target)


async def test_everything_of_a_sound_world_comes_through_with_forks_states_and_producers(tmp_path: Path) -> None:
    path, target = tmp_path / "world.db", tmp_path / "copy.db"
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    world = await build_world(store, messages=3_000)
    tokens = [token("first"), token("second", parent="first", expires_ms=NOW_MS + 1)]
    for one in tokens:
        assert await store.put_token(one, at_most=9)
    revoked = Proof("acme", "alice", jti="j", issued_ms=1)
    await store.revoke(Revocation(tenant="acme", subject="alice", before_ms=5), 0)
    await store.close()
    result = salvage(path, target, DEFAULT_LIMITS)
    assert result.lost == ()
    assert await held(target) == await held(path)
    assert await held(target, BOB) == await held(path, BOB)
    for file in (path, target):
        store = SQLiteStore(file, durability=Durability.PROCESS)
        await store.open()
        assert list((await store.list_tokens(ALICE, limit=9, after=None)).items) == tokens[::-1]
        assert await store.revoked([revoked]) == {revoked}
        fork = await store.get_by_id(world.fork.id)
        assert fork == world.fork
        running = world.by_state[StreamState.RUNNING]
        again = await append(store, running, [encoded("1")], producer=Producer("run-1", 1, 0))
        assert again.duplicate
        fresh = await create(store, "another")
        assert fresh.id > world.foreign.id
        await store.close()


async def test_no_token_comes_without_the_one_it_was_made_with_and_lost_revocations_are_told(tmp_path: Path) -> None:
    path, target = tmp_path / "world.db", tmp_path / "copy.db"
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    for one in (token("a"), token("b", parent="a"), token("c", parent="b"), token("d", parent="c"), token("x")):
        assert await store.put_token(one, at_most=9)
    await store.revoke(Revocation(tenant="acme", jti="j"), 0)
    await store.close()
    with closing(connect(path)) as raw:
        raw.execute("DELETE FROM token WHERE id = 'b'")  # as if its page were lost, and not those of the others
    damage(path, *pages_of(path, "revocation"))
    lost = [one.reason for one in salvage(path, target, DEFAULT_LIMITS).lost]
    assert [reason.partition(" (page")[0] for reason in lost] == [
        "revocations may be missing, so that what was revoked is good again: make them again"
    ]
    store = SQLiteStore(target, durability=Durability.PROCESS)
    await store.open()
    assert [one.id for one in (await store.list_tokens(ALICE, limit=9, after=None)).items] == ["x", "a"]
    await store.close()


async def test_a_fork_follows_its_source_over_a_hole(tmp_path: Path) -> None:
    path, target = tmp_path / "bad.db", tmp_path / "good.db"
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    source = await create(store, "source")
    for number in range(1, 11):
        await append(store, source, [encoded("x" * 5_000 + f" source {number} ")])
    fork = await create(store, "fork", fork=Fork(source.id, Seq(7)))
    await append(store, fork, [encoded("fork 8")])
    await store.close()
    await asyncio.to_thread(damage, path, page_of(path, b" source 5 "))
    result = salvage(path, target, DEFAULT_LIMITS)
    assert result.lost == (Lost(NO_CHUNK, "source", 5, 5),)
    found = await held(target)
    assert [m.kind for m in found["fork"]] == [*["token"] * 4, "lost", "token", "token", "token"]
    assert found["fork"][-1].text == "fork 8"
    await store_agrees(target, source.id, fork.id)
    sound(target)


async def store_agrees(path: Path, source: StreamId, fork: StreamId) -> None:
    """The fork begins where the source's chain is there."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    branch = await store.get_by_id(fork)
    assert branch is not None
    assert branch.genesis == await store.hash_at(source, branch.fork_seq)
    await store.close()


async def test_what_is_only_in_the_write_ahead_log_is_brought_back_too(tmp_path: Path) -> None:
    running = tmp_path / "running.db"
    store = SQLiteStore(running, durability=Durability.PROCESS)
    await store.open()
    stream = await create(store, "a")
    await append(store, stream, [encoded("in the log")])
    with pytest.raises(InUseError):
        await asyncio.to_thread(in_another_process, running, tmp_path / "refused.db")
    for suffix in ("", "-wal"):
        data = await asyncio.to_thread(running.with_name(f"running.db{suffix}").read_bytes)
        (tmp_path / f"crashed.db{suffix}").write_bytes(data)
    await store.close()
    result = salvage(tmp_path / "crashed.db", tmp_path / "good.db", DEFAULT_LIMITS)
    assert (result.streams, result.messages, result.lost) == (1, 1, ())
    assert [m.text for m in (await held(tmp_path / "good.db"))["a"]] == ["in the log"]


def in_another_process(source: Path, target: Path) -> None:
    """A lock is seen from another process only."""
    command = [sys.executable, "-m", "unbroken", "salvage", str(source), str(target), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, target.exists()) == (75, False), done.stderr
    if '"error":"in_use"' in done.stderr:
        raise InUseError


@pytest.mark.scenario("TC-EDGE-008")
async def test_the_command_lists_losses_for_people_and_for_programs(tmp_path: Path) -> None:
    made, commands = await planted(tmp_path / "bad.db"), Commands(tmp_path / "home", "http://127.0.0.1:9")
    whole = await commands("salvage", str(made.path), str(tmp_path / "whole.db"))
    assert (whole.status, whole.text) == (0, f"{tmp_path}/whole.db: 5 streams, 480 messages brought back, 0 losses\n")
    await asyncio.to_thread(damage, made.path, page_of(made.path, b"s/1 7.2"))
    told = await commands("salvage", str(made.path), str(tmp_path / "good.db"))
    assert told.status == 4
    assert told.text.splitlines()[0] == f"LOST s/1 22-24: {NO_CHUNK}"
    unasked = await commands("salvage", str(made.path), str(tmp_path / "good.db"), "--json")
    assert unasked.status == 1
    listed = await commands("salvage", str(made.path), str(tmp_path / "good.db"), "--json", "--force")
    assert (listed.status, listed.objects[0]["messages"]) == (4, 477)
    assert listed.objects[0]["lost"] == [{"reason": NO_CHUNK, "stream": "s/1", "first": 22, "last": 24}]


async def test_a_file_that_another_program_has_rewritten_is_mended_when_its_pages_are_believed(tmp_path: Path) -> None:
    made, target = await planted(tmp_path / "bad.db"), tmp_path / "good.db"
    other = sqlite3.connect(made.path)
    other.execute("VACUUM")
    other.close()
    doubted = salvage(made.path, tmp_path / "doubted.db", DEFAULT_LIMITS)
    assert any("name, owner and state" in lost.reason for lost in doubted.lost)
    assert doubted.messages == 4 * 120
    result = salvage(made.path, target, DEFAULT_LIMITS, means=Means(believe_pages=True))
    assert result.lost == ()
    await check(made, target, result)


async def test_a_message_that_somebody_changed_with_its_checksum_is_lost_and_no_other(tmp_path: Path) -> None:
    made, target = await planted(tmp_path / "bad.db"), tmp_path / "good.db"
    await asyncio.to_thread(change_skilfully, made.path, b"s/1 7.2", b"s/1 8.2")
    result = brought_back(made, target)
    assert result.lost == (Lost("they do not match their hash chain", "s/1", 22, 24),)
    await check(made, target, result)


def change_skilfully(path: Path, old: bytes, new: bytes) -> None:
    """Change a message and mend its chunk's checksum, and by the way the page's."""
    connection = connect(path)
    for values in list(connection.execute("SELECT id, n, flags, crc, hash, body, marks FROM chunk")):
        batch = decode_chunk(ChunkRow(*values))
        if old in batch.body:
            row = encode_chunk(StreamId(values[0] >> 32), replace(batch, body=batch.body.replace(old, new)))
            connection.execute("UPDATE chunk SET crc = ?, body = ? WHERE id = ?", (row.crc, row.body, row.key))
    connection.close()


@pytest.mark.parametrize("what", ["nothing", "zeros", "noise", "text", "another program's"])
async def test_of_what_is_no_database_of_ours_nothing_is_made(tmp_path: Path, what: str) -> None:
    source, target = tmp_path / "x.db", tmp_path / "made.db"
    contents = {"nothing": b"", "zeros": bytes(9 * PAGE), "text": b"this is not a database\n" * 2_000}
    contents["noise"] = random.Random(SEED).randbytes(30 * PAGE)
    if what in contents:
        source.write_bytes(contents[what])
    else:
        other = sqlite3.connect(source)
        other.executescript("CREATE TABLE stream (a, b); INSERT INTO stream VALUES (1, 'x'); CREATE TABLE chunk (a)")
        other.close()
    for means in (Means(), Means(believe_pages=True)):
        with pytest.raises(StoreUnsupportedError, match=r"nothing in .*x\.db"):
            salvage(source, target, DEFAULT_LIMITS, means=means)
    assert not target.exists()


@pytest.mark.parametrize("damaged", [False, True])
async def test_a_database_of_ours_without_streams_is_one(tmp_path: Path, *, damaged: bool) -> None:
    store = SQLiteStore(tmp_path / "x.db", durability=Durability.PROCESS)
    await store.open()
    assert await store.put_token(token("first"), at_most=9)
    await store.close()
    if damaged:
        await asyncio.to_thread(damage, tmp_path / "x.db", 1)
    result = salvage(tmp_path / "x.db", tmp_path / "made.db", DEFAULT_LIMITS)
    assert (result.streams, result.messages, result.lost) == (0, 0, ())
