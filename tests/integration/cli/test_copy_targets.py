"""No copy takes the place of the database that it is made of, of a file that a database needs, or of one that is open.

By the verbs' own functions for every name and link, and by the command line beside a real server that is killed afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import append, create, encoded
from tests.support.commands import Commands
from tests.support.server import ServerProcess
from unbroken import Client
from unbroken.errors import InvalidError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.base import Durability
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.backup import back_up, restore
from unbroken.store.sqlite.salvage import salvage

pytestmark = pytest.mark.anyio

VERBS: dict[str, Callable[[Path, Path], object]] = {
    "backup": lambda source, target: back_up(source, target, DEFAULT_LIMITS, replace=True),
    "restore": lambda source, target: restore(source, target, DEFAULT_LIMITS, replace=True),
    "salvage": lambda source, target: salvage(source, target, DEFAULT_LIMITS, replace_target=True),
}
OWN = ("-wal", "-shm", "-journal", "-ballast", ".partial")


async def database(path: Path) -> Path:
    """A closed database with one message."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    await append(store, await create(store, "a"), [encoded("one")])
    await store.close()
    return path


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def links(source: Path, directory: Path) -> list[Path]:
    """Other names of the source, and of what belongs to it."""
    directory.mkdir()
    log = source.with_name(source.name + "-wal")
    log.write_bytes(b"frames")
    soft, hard, of_log, growing = (directory / name for name in ("soft.db", "hard.db", "log.db", "copy.db.partial"))
    soft.symlink_to(source)
    os.link(source, hard)
    os.link(log, of_log)
    os.link(source, growing)
    (directory / "beside.db").symlink_to(source.with_name(source.name + "-shm"))
    return [soft, hard, of_log, directory / "copy.db", directory / "beside.db"]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_copy_never_takes_the_place_of_what_a_database_needs(tmp_path: Path, verb: str) -> None:
    source, other = await database(tmp_path / "a.db"), await database(tmp_path / "b.db")
    targets = [source, *(path.with_name(path.name + suffix) for path in (source, other) for suffix in OWN)]
    targets += links(source, tmp_path / "links")
    before = files(tmp_path)
    for target in targets:
        with pytest.raises(InvalidError, match="a name of its own"):
            VERBS[verb](source, target)
        assert files(tmp_path) == before, target
    source.with_name("a.db-wal").unlink()
    VERBS[verb](source, tmp_path / "daily-journal")  # of no database


async def test_beside_a_server_nothing_that_it_needs_is_replaced_and_all_it_acknowledged_stays(
    server: ServerProcess, commands: Commands, tmp_path: Path
) -> None:
    live, copy = server.database, tmp_path / "copy.db"
    async with Client(server.url) as client:
        await client.create("a")
        await client.append("a", ["one", "two"])
        assert (await commands("backup", str(live), str(copy))).status == 0
        await client.append("a", "three")
        for arguments, code in (
            (("backup", live, live), "invalid"),
            (("backup", copy, live), "in_use"),
            (("salvage", copy, live.with_name("unbroken.db-wal")), "invalid"),
        ):
            refused = await commands(*map(str, arguments), "--force")
            assert refused.err.startswith(f"error[{code}]: "), (arguments, refused)
        await client.append("a", "four")
        await server.kill()
        await server.start()
        assert [message.text for message in (await client.read("a")).messages] == ["one", "two", "three", "four"]
