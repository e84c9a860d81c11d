"""backup and restore, as real processes: under load, killed, on damaged files, and beside a running server."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
from pathlib import Path
from random import Random

import pytest

from tests.support.builders import append, create, encoded, read_all
from tests.support.commands import Commands, eventually
from tests.support.database import connect
from tests.support.server import ServerProcess
from unbroken import Client
from unbroken.identity import Principal
from unbroken.store.base import Durability
from unbroken.store.keys import new_master_key
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.salvage import unsound_pages
from unbroken.testing import History

pytestmark = pytest.mark.anyio


@pytest.fixture
def alone(tmp_path: Path) -> Commands:
    """`unbroken` without a server."""
    return Commands(tmp_path / "home", "http://127.0.0.1:9")


async def held(path: Path, name: str) -> list[str]:
    """The texts of a stream in a database file."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    try:
        stream = await store.get(Principal(), name)
        assert stream is not None
        return await read_all(store, stream.id)
    finally:
        await store.close()


def named(directory: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in directory.glob(pattern))


async def filled(path: Path, messages: int) -> Path:
    """A closed database with a stream `a`."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    stream = await create(store, "a", Principal())
    for start in range(0, messages, 1_000):
        await append(store, stream, [encoded(str(n)) for n in range(start, min(start + 1_000, messages))])
    await store.close()
    return path


async def test_a_backup_under_load_is_a_verified_prefix_with_everything_acknowledged_before_it(
    server: ServerProcess, commands: Commands, tmp_path: Path
) -> None:
    history = History()
    target, done = tmp_path / "backup.db", asyncio.Event()
    acknowledged: list[int] = []

    async def write() -> None:
        async with Client(server.url) as client, client.producer("a", id="p") as producer:
            number = 0
            while not done.is_set():
                texts = [f"m{n}" for n in range(number, number + 20)]
                for text in texts:
                    history.invoke("p", text, text)
                for text in texts:
                    await producer.send(text)
                await producer.flush()
                number += 20
                acknowledged.append(number)

    async with Client(server.url) as client:
        await client.create("a")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        try:
            await eventually(lambda: len(acknowledged) > 5, "the producer is under way")
            for position in range(1, acknowledged[-1] + 1):
                history.ack(f"m{position - 1}", position)
            before = len(acknowledged)
            made = await commands("backup", str(server.database), str(target), "--json")
            history.fault("appends during the backup", len(acknowledged) - before)
        finally:
            done.set()
    assert made.status == 0, made.err
    texts = await held(target, "a")
    assert made.objects == [{**made.objects[0], "backup": str(target), "streams": 1, "messages": len(texts)}]
    history.open("reader")
    for position, text in enumerate(texts, 1):
        history.deliver("reader", position, text, text)
    history.leave("reader")
    history.final([(position, text, text) for position, text in enumerate(texts, 1)])
    report = history.check()
    assert report.anomalies == [], str(report)
    assert report.faults["appends during the backup"] > 0, "inconclusive: nothing was written meanwhile"
    assert target.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("encrypted", [False, True], ids=["in the clear", "encrypted"])
async def test_a_live_database_with_much_in_its_write_ahead_log_is_backed_up(
    tmp_path: Path, *, encrypted: bool
) -> None:
    """More than a connection's cache holds: a reader keeps the server from taking it into the file."""
    key, target, chance = tmp_path / "master.keys", tmp_path / "backup.db", Random(20261127)
    key.write_text(new_master_key(), encoding="ascii")
    key.chmod(0o600)
    given = ["--encryption-key-file", str(key)] if encrypted else []
    async with ServerProcess(tmp_path, arguments=given) as server, Client(server.url) as client:
        await client.create("a")
        reader = connect(server.database)
        reader.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()
        for number in range(20):
            await client.append("a", [f"{number}.{part} {chance.randbytes(30_000).hex()}" for part in range(4)])
        log = server.database.with_name("unbroken.db-wal")
        assert log.stat().st_size > 4 << 20, "inconclusive: it is in the file already"
        made = await Commands(tmp_path / "home", server.url)(
            "backup", str(server.database), str(target), "--json", *given
        )
        reader.close()
    assert made.status == 0, made.err
    assert made.objects[0]["messages"] == 80
    assert list(unsound_pages(target)) == []


@pytest.mark.parametrize("old", [True, False], ids=["over an old backup", "for the first time"])
async def test_a_backup_that_is_killed_leaves_no_half_file_and_the_next_one_succeeds(
    alone: Commands, tmp_path: Path, *, old: bool
) -> None:
    source, target = await filled(tmp_path / "unbroken.db", 60_000), tmp_path / "backup.db"
    before = b"an older backup" if old else None
    if before is not None:
        target.write_bytes(before)
    unfinished = tmp_path / "backup.db.partial"
    process = await alone.start("backup", str(source), str(target), "--force")
    await eventually(lambda: unfinished.exists() and unfinished.stat().st_size > 0, "it copies")
    process.send_signal(signal.SIGKILL)
    _, told = await process.communicate()
    assert process.returncode == -signal.SIGKILL, f"inconclusive: it was too fast {told!r}"
    assert (target.read_bytes() if target.exists() else None) == before
    assert unfinished.exists()
    again = await alone("backup", str(source), str(target), "--force")
    assert again.status == 0, again.err
    assert "60000 messages, verified" in again.text
    assert not unfinished.exists()
    assert len(await held(target, "a")) == 60_000


async def test_a_backup_overwrites_nothing_unasked_and_two_do_not_mix(alone: Commands, tmp_path: Path) -> None:
    source, target = await filled(tmp_path / "unbroken.db", 10), tmp_path / "backup.db"
    assert (await alone("backup", f"sqlite:///{source}", str(target))).status == 0
    refused = await alone("backup", str(source), str(target))
    assert (refused.status, refused.err.partition(":")[0]) == (1, "error[already_exists]")
    assert (await alone("backup", str(source), str(target), "--force")).status == 0
    missing = await alone("backup", str(tmp_path / "other.db"), str(target), "--force")
    assert (missing.status, (tmp_path / "other.db").exists()) == (5, False)
    (tmp_path / "foreign.db").write_bytes(b"this is not a database" * 1000)
    assert (await alone("backup", str(tmp_path / "foreign.db"), str(tmp_path / "b.db"))).status == 4
    nowhere = await alone("backup", str(source), str(tmp_path / "no" / "b.db"))
    assert (nowhere.status, "cannot be made" in nowhere.err) == (75, True)
    assert named(tmp_path, "*.db*") == ["backup.db", "foreign.db", "unbroken.db", "unbroken.db-ballast"]


async def test_a_copy_that_may_not_grow_says_why_and_what_to_do(tmp_path: Path) -> None:
    source, chance = await filled(tmp_path / "unbroken.db", 1), Random(20261127)
    store = SQLiteStore(source, durability=Durability.PROCESS)
    await store.open()
    await create(store, "b", Principal(), messages=[encoded(chance.randbytes(30_000).hex()) for _ in range(20)])
    await store.close()
    bounded = Commands(tmp_path / "home", "http://127.0.0.1:9")
    bounded.program = ("sh", "-c", 'ulimit -f 500 && exec "$@"', "sh", *Commands.program)
    refused = await bounded("backup", str(source), str(tmp_path / "copy.db"))
    assert (refused.status, refused.err.partition(":")[0]) == (75, "error[copy_failed]"), refused.err
    assert f"copy.db.partial cannot be written: {os.strerror(errno.EFBIG)}\n" in refused.err
    assert "ulimit" in refused.err.partition("cure: ")[2]
    assert named(tmp_path, "copy.db*") == []


async def test_what_is_damaged_is_neither_backed_up_nor_restored(alone: Commands, tmp_path: Path) -> None:
    source, good = await filled(tmp_path / "unbroken.db", 2_000), tmp_path / "good.db"
    assert (await alone("backup", str(source), str(good))).status == 0
    data = bytearray(good.read_bytes())
    data[data.index(b'"1234"') + 1] ^= 1
    flipped, edited = tmp_path / "flipped.db", tmp_path / "edited.db"
    flipped.write_bytes(data)
    shutil.copy(good, edited)
    connection = connect(edited)
    connection.execute("UPDATE chunk SET body = zeroblob(length(body)) WHERE id IN (SELECT max(id) FROM chunk)")
    connection.close()
    for bad in (flipped, edited):
        for arguments in (("backup", bad, tmp_path / "copy.db"), ("restore", bad, source, "--force")):
            refused = await alone(*map(str, arguments), "--json")
            assert (refused.status, '"error":"corrupt"' in refused.err) == (4, True), refused.err
    assert len(await held(source, "a")) == 2_000
    assert not (tmp_path / "copy.db").exists()
    assert named(tmp_path, "*.partial*") == []


async def test_a_restore_is_refused_beside_a_server_and_brings_back_what_was_saved(
    server: ServerProcess, commands: Commands, tmp_path: Path
) -> None:
    backup, database = tmp_path / "backup.db", server.database
    async with Client(server.url) as client:
        await client.create("a")
        await client.append("a", ["one", "two"])
        assert (await commands("backup", str(database), str(backup))).status == 0
        await client.append("a", "three")
    refused = await commands("restore", str(backup), str(database), "--force", "--json")
    assert (refused.status, '"error":"in_use"' in refused.err) == (75, True), refused.err
    await server.kill()
    unasked = await commands("restore", str(backup), str(database))
    assert (unasked.status, "--force" in unasked.err) == (1, True)
    done = await commands("restore", str(backup), str(database), "--force", "--json")
    assert done.status == 0, done.err
    kept = Path(done.objects[0]["replaced"])
    assert (done.objects[0]["messages"], kept) == (2, database.with_name("unbroken.db.replaced"))
    assert await held(kept, "a") == ["one", "two", "three"], "the write-ahead log went with it"
    await server.start()
    async with Client(server.url) as client:
        assert (await client.state("a")).head == 2
        assert (await client.verify("a")).ok
        await client.append("a", "another")


@pytest.mark.scenario("TC-EDGE-008")
async def test_a_write_ahead_log_that_was_left_behind_never_meets_what_is_restored(
    alone: Commands, tmp_path: Path
) -> None:
    """Somebody deleted the database without its log, or a restore was killed between renaming the one and the other."""
    backup, database = await filled(tmp_path / "backup.db", 10), tmp_path / "unbroken.db"
    store = SQLiteStore(tmp_path / "old.db", durability=Durability.PROCESS)
    await store.open()
    await append(store, await create(store, "another", Principal()), [encoded("old")])
    left = (tmp_path / "old.db-wal").read_bytes()
    await store.close()
    assert left
    for verb in ("restore", "backup", "salvage"):
        (tmp_path / "unbroken.db-wal").write_bytes(left)

        done = await alone(verb, str(backup), str(database))

        assert done.status == 0, done.err
        assert await held(database, "a") == [str(n) for n in range(10)], verb
        database.unlink()
    assert (tmp_path / "unbroken.db-wal.replaced").read_bytes() == left
    assert named(tmp_path, "unbroken.db-wal.replaced*") == [
        "unbroken.db-wal.replaced",
        "unbroken.db-wal.replaced-2",
        "unbroken.db-wal.replaced-3",
    ]
