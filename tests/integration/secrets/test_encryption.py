"""Encryption at rest: no file holds what streams hold, a wrong key loses nothing, and every tool works with it."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.secrets.conftest import files_with
from tests.support.canary import plant
from tests.support.database import connect
from tests.support.parts import ALICE, Parts, running_parts, texts
from tests.support.server import ServerProcess
from unbroken import Client
from unbroken.cli.app import execute
from unbroken.errors import ConfigurationError, CorruptError
from unbroken.identity import Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamInfo, StreamState, decode_messages
from unbroken.protocol.salts import SALT_BYTES
from unbroken.requests import NewStream
from unbroken.store.base import Durability, Fork, StreamFilter
from unbroken.store.keys import MasterKeys, Wrapping, WrongKeyError, new_master_key
from unbroken.store.sealing import Keyring
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.backup import back_up, restore
from unbroken.store.sqlite.salvage import Means, salvage
from unbroken.store.sqlite.stream_keys import rewrap

pytestmark = pytest.mark.anyio

CANARY = plant("canary-" + "7f3a" * 6)
LIMITS = replace(DEFAULT_LIMITS, store_ballast_bytes=4096, compact_chunks_min=2)


def store_at(path: Path, keys: Wrapping | None) -> SQLiteStore:
    store = SQLiteStore(path, durability=Durability.PROCESS, limits=LIMITS, compress=True)
    if keys is not None:
        store.encrypt_with(keys)
    return store


async def fill(parts: Parts, name: str = "a") -> StreamInfo:
    """A stream with the canary wherever one can put it."""
    new = NewStream(session="s", metadata=f'{{"m":"{CANARY}"}}', run=f'{{"arguments":"{CANARY}"}}')
    stream = await parts.stream(name, new)
    await parts.streams.put_session(ALICE, "s", metadata=f'{{"m":"{CANARY}"}}')
    for number in range(6):
        await parts.streams.append_durably(stream, texts(f"{number} {CANARY}" * 30))
    return stream


async def read(parts: Parts, name: str = "a") -> list[str]:
    stream = await parts.streams.get(ALICE, name, may=Verb.READ)
    found = await parts.streams.read(stream, Seq(0))
    return [str(message.text) for batch in found.batches for message in decode_messages(batch.body)]


async def test_no_file_holds_what_streams_hold(tmp_path: Path) -> None:
    keys = MasterKeys.parse(new_master_key())
    path = tmp_path / "x.db"
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        stream = await fill(parts)
        assert await parts.store.compact(stream.id)
        fork = await parts.streams.create(
            ALICE, "fork", NewStream(fork=Fork(stream.id, Seq(3)), messages=tuple(texts(CANARY)))
        )
        closed = await parts.states.close(stream, StreamState.FAILED, f'{{"why":"{CANARY}"}}')
        assert files_with(tmp_path, CANARY) == []
        assert len(closed.salts) >= SALT_BYTES
        assert files_with(tmp_path, closed.salts) == []
        back_up(path, tmp_path / "copy.db", LIMITS, ring=Keyring(keys))
        assert CANARY in closed.reason
        assert await read(parts) == [f"{number} {CANARY}" * 30 for number in range(6)]
        assert await read(parts, "fork") == [*[f"{number} {CANARY}" * 30 for number in range(3)], CANARY]
        assert (await parts.streams.verify(fork.stream)).bad is None
    assert files_with(tmp_path, CANARY) == []
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        assert len(await read(parts)) == 6
        info = await parts.streams.get(ALICE, "a", may=Verb.READ)
        assert all(CANARY in (text or "") for text in (info.metadata, info.reason, info.run))
        assert CANARY in (await parts.streams.get_session(ALICE, "s", may=Verb.READ)).metadata
        assert len((await parts.streams.list(ALICE, StreamFilter(), limit=10, page=None)).items) == 2


async def test_without_encryption_the_search_finds_it(tmp_path: Path) -> None:
    async with running_parts(store_at(tmp_path / "x.db", None), limits=LIMITS) as parts:
        stream = await fill(parts)
        assert files_with(tmp_path, CANARY)
        assert files_with(tmp_path, stream.salts)


async def test_no_nonce_and_no_ciphertext_comes_twice(tmp_path: Path) -> None:
    keys = MasterKeys.parse(new_master_key())
    seen: set[bytes] = set()
    async with running_parts(store_at(tmp_path / "x.db", keys), limits=LIMITS) as parts:
        stream = await parts.stream()
        for _ in range(4):
            await asyncio.gather(*[parts.streams.append(stream, texts("the same")) for _ in range(3)])
            await parts.store.compact(stream.id)
            with closing(connect(tmp_path / "x.db")) as raw:
                bodies = [row[0] for row in raw.execute("SELECT body FROM chunk WHERE flags & 2")]
            assert bodies
            seen |= set(bodies)
    assert len({body[:12] for body in seen}) == len(seen)


@pytest.mark.parametrize("given", ["none", "other"])
async def test_a_missing_or_wrong_key_is_told_at_the_start_and_nothing_is_lost(tmp_path: Path, given: str) -> None:
    keys = MasterKeys.parse(new_master_key())
    path = tmp_path / "x.db"
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        await fill(parts)
    before = path.read_bytes()
    store = store_at(path, None if given == "none" else MasterKeys.parse(new_master_key()))
    with pytest.raises(ConfigurationError, match="no key was given" if given == "none" else keys.names):
        await store.open()
    assert path.read_bytes() == before
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        assert len(await read(parts)) == 6


async def test_what_was_stored_before_stays_readable_and_what_is_stored_now_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with running_parts(store_at(path, None), limits=LIMITS) as parts:
        stream = await parts.stream("a", NewStream(metadata='{"old":1}'))
        await parts.streams.append_durably(stream, texts("old-" + CANARY[:9]))
    keys = MasterKeys.parse(new_master_key())
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        stream = await parts.streams.get(ALICE, "a", may=Verb.READ)
        await parts.streams.append_durably(stream, texts(CANARY))
        await parts.streams.set_metadata(stream, f'{{"new":"{CANARY}"}}')
        assert await read(parts) == ["old-" + CANARY[:9], CANARY]
        assert files_with(tmp_path, CANARY) == []
    assert salvage(path, tmp_path / "new.db", LIMITS, means=Means(ring=Keyring(keys))).lost == ()
    assert files_with(tmp_path, "old-" + CANARY[:9]) == ["x.db"], "salvage encrypts everything"


async def test_a_chunk_that_was_moved_or_changed_is_never_served(tmp_path: Path) -> None:
    keys = MasterKeys.parse(new_master_key())
    path = tmp_path / "x.db"
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        for name in ("a", "b"):
            await parts.streams.append_durably(await parts.stream(name), texts(f"of {name}"))
    with closing(connect(path)) as raw:
        key, wrapped = next(iter(raw.execute("SELECT stream_id, wrapped FROM stream_key WHERE stream_id > 0")))
        raw.execute("UPDATE stream_key SET wrapped = ? WHERE stream_id = ?", (wrapped, key + 1))
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        assert await read(parts, "a") == ["of a"]
        with pytest.raises(CorruptError):
            await read(parts, "b")


async def test_a_text_that_was_moved_to_another_place_is_never_served(tmp_path: Path) -> None:
    keys = MasterKeys.parse(new_master_key())
    path = tmp_path / "x.db"
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        for name in "abc":
            await parts.stream(name, NewStream(metadata=f'{{"of":"{name}"}}'))
            await parts.streams.put_session(ALICE, name, metadata=f'{{"of":"{name}"}}')
    with closing(connect(path)) as raw:
        for table in ("stream", "session"):
            of_another = f"(SELECT metadata FROM {table} WHERE name = 'a')"
            raw.execute(f"UPDATE {table} SET metadata = {of_another} WHERE name = 'b'")
        raw.execute("UPDATE stream SET reason = metadata WHERE name = 'c'")
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        assert (await parts.streams.get(ALICE, "a", may=Verb.READ)).metadata == '{"of":"a"}'
        for name in ("b", "c"):
            with pytest.raises(CorruptError):
                await parts.streams.get(ALICE, name, may=Verb.READ)
        for name in ("a", "c"):
            session = await parts.streams.get_session(ALICE, name, may=Verb.READ)
            assert session.metadata == f'{{"of":"{name}"}}'
        with pytest.raises(CorruptError):
            await parts.streams.get_session(ALICE, "b", may=Verb.READ)


async def test_keys_are_changed_while_a_server_goes_on(tmp_path: Path) -> None:
    old, new = new_master_key(), new_master_key()
    path = tmp_path / "x.db"
    both = MasterKeys.parse(f"{new}\n{old}")
    async with running_parts(store_at(path, MasterKeys.parse(old)), limits=LIMITS) as parts:
        await fill(parts)
    async with running_parts(store_at(path, both), limits=LIMITS) as parts:
        assert rewrap(path, LIMITS, Keyring(both)) == 2
        await fill(parts, "b")
        assert len(await read(parts)) == 6
    async with running_parts(store_at(path, MasterKeys.parse(new)), limits=LIMITS) as parts:
        assert len(await read(parts, "b")) == 6
    with pytest.raises(ConfigurationError, match="wrapped with the key"):
        await store_at(path, MasterKeys.parse(old)).open()


async def test_backup_restore_and_salvage_keep_it_encrypted(tmp_path: Path) -> None:
    keys = MasterKeys.parse(new_master_key())
    path = tmp_path / "x.db"
    async with running_parts(store_at(path, keys), limits=LIMITS) as parts:
        await fill(parts)
        await fill(parts, "b")
    blind = back_up(path, tmp_path / "copy.db", LIMITS)
    assert (blind.blind, blind.messages) == (True, 12)
    seeing, _ = restore(tmp_path / "copy.db", tmp_path / "restored.db", LIMITS, ring=Keyring(keys))
    assert (seeing.blind, seeing.messages, seeing.faults) == (False, 12, ())
    with closing(connect(path)) as raw:
        raw.execute("DELETE FROM stream_key WHERE stream_id = 2")
    with pytest.raises(ConfigurationError):
        salvage(path, tmp_path / "saved.db", LIMITS)
    result = salvage(path, tmp_path / "saved.db", LIMITS, means=Means(ring=Keyring(keys)))
    assert result.messages == 6
    assert {lost.stream for lost in result.lost} == {"b"}
    async with running_parts(store_at(tmp_path / "saved.db", keys), limits=LIMITS) as parts:
        assert len(await read(parts)) == 6
        assert CANARY in (await parts.streams.get_session(ALICE, "s", may=Verb.READ)).metadata
    assert files_with(tmp_path, CANARY) == []


async def test_a_key_management_service_is_a_wrapping(tmp_path: Path) -> None:
    class Service:
        def __init__(self) -> None:
            self.kept: dict[bytes, tuple[bytes, bytes]] = {}

        def wrap(self, key: bytes, context: bytes) -> bytes:
            name = os.urandom(16)
            self.kept[name] = (key, context)
            return name

        def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
            key, bound = self.kept.get(wrapped, (b"", b""))
            if not key or bound != context:
                raise WrongKeyError("the service does not know it")
            return key

    service = Service()
    path = tmp_path / "x.db"
    async with running_parts(store_at(path, service), limits=LIMITS) as parts:
        await fill(parts)
    async with running_parts(store_at(path, service), limits=LIMITS) as parts:
        assert len(await read(parts)) == 6
    with pytest.raises(ConfigurationError, match="does not know it"):
        await store_at(path, Service()).open()
    assert files_with(tmp_path, CANARY) == []


async def test_a_server_and_the_verbs_with_a_key_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    assert await asyncio.to_thread(execute, ["encryption-key", str(key)]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    place = tmp_path / "data"
    place.mkdir()
    server = ServerProcess(place, arguments=["--encryption-key-file", str(key)])
    async with server, Client(server.url) as client, asyncio.timeout(60):
        await client.create("a", metadata={"m": CANARY})
        await client.append("a", CANARY)
        await server.kill()
        await server.start()
        assert (await client.read("a")).messages[0].text == CANARY
    database = f"sqlite:///{place / 'unbroken.db'}"
    monkeypatch.delenv("UNBROKEN_ENCRYPTION_KEY_FILE", raising=False)
    assert await asyncio.to_thread(execute, ["verify", "--all", "--store", database]) == 78
    for verb in (["verify", "--all"], ["doctor"]):
        assert await asyncio.to_thread(execute, [*verb, "--store", database, "--encryption-key-file", str(key)]) == 0
    assert await asyncio.to_thread(execute, ["backup", database, str(tmp_path / "copy.db")]) == 0
    assert await asyncio.to_thread(execute, ["encryption-key", str(key)]) == 0
    assert await asyncio.to_thread(execute, ["rekey", database, "--encryption-key-file", str(key)]) == 0
    told = capsys.readouterr()
    secret = key.read_text(encoding="ascii").split()[0].partition(":")[2]
    for line in (told.out, told.err, server.output):
        assert secret not in line
        assert CANARY not in line
    assert files_with(tmp_path, CANARY) == []
