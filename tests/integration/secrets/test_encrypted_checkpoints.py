"""Signed checkpoints of a server whose database is encrypted: whoever changes its file is found out, and named is what."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.test_checkpoints import until_noted
from tests.integration.secrets.conftest import files_with
from tests.support.canary import plant
from tests.support.database import connect
from tests.support.server import ServerProcess
from unbroken import Client
from unbroken.checkpoints.book import FILE_NAME
from unbroken.checkpoints.notes import generate
from unbroken.cli.app import execute
from unbroken.store.chunks import ChunkRow, decode_chunk, encode_chunk
from unbroken.store.keys import new_master_key
from unbroken.store.sealing import StreamKey

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INTEG-001")]

CANARY = plant("canary-" + "3e8b" * 6)


@dataclass(frozen=True)
class Place:
    """What a server has left: its database, the file with its encryption key, its checkpoints and who has signed them."""

    directory: Path
    signed_by: str

    @property
    def database(self) -> Path:
        return self.directory / "unbroken.db"

    def verified(
        self, capsys: pytest.CaptureFixture[str], *arguments: str, of: str = "a"
    ) -> tuple[int, dict[str, Any]]:
        """The exit code of `verify --all --json`, and what it says of one stream."""
        store = ["--store", f"sqlite:///{self.database}", "--encryption-key-file", str(self.directory / "key")]
        capsys.readouterr()
        code = execute(["verify", "--all", "--json", *store, *arguments])
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, next(row for row in rows if row.get("stream") == of)

    @property
    def trusted(self) -> list[str]:
        return ["--checkpoints", str(self.directory / "notes"), "--key", self.signed_by]


@pytest.fixture(scope="module")
async def original(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> Place:
    """Of a server that made checkpoints on its way, and at its end in order."""
    directory = tmp_path_factory.mktemp("sealed")
    (directory / "key").write_text(new_master_key(), encoding="ascii")
    place = Place(directory, str(generate(directory / "signing", "example.com/fake")))
    options = ["--encryption-key-file", str(directory / "key"), "--checkpoints", str(directory / "notes")]
    server = ServerProcess(directory, arguments=[*options, "--checkpoint-key", str(directory / "signing")])
    async with server, Client(server.url) as client, asyncio.timeout(90):
        for name in ("a", "ended"):
            await client.create(name, metadata={"m": CANARY})
        await client.append("a", [f"1 {CANARY}", f"2 {CANARY}"])
        await client.append("ended", CANARY)
        await client.close("ended", "completed")
        await until_noted(directory / "notes" / FILE_NAME, "ended completed")
        await client.append("a", f"3 {CANARY}")
        await client.append("a", [f"4 {CANARY}", f"5 {CANARY}"])
        await server.terminate()
    assert "checkpoint" not in server.output, "nothing was refused"
    return place


@pytest.fixture
def place(original: Place, tmp_path: Path) -> Place:
    """A copy of it all, to be tampered with."""
    shutil.copytree(original.directory, tmp_path / "copy")
    return Place(tmp_path / "copy", original.signed_by)


def test_they_cover_everything_and_hold_nothing_of_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, row = place.verified(capsys, *place.trusted)
    assert (code, row["ok"], row["checked"], row["covered"]) == (0, True, 5, 5)
    assert files_with(place.directory, CANARY) == []


def test_a_stream_that_was_cut_off_without_the_key_shows_by_its_checkpoint(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(connect(place.database)) as raw:
        (stream,) = next(raw.execute("SELECT id FROM stream WHERE name = 'a'"))
        raw.execute("DELETE FROM chunk WHERE id >> 32 = ? AND id & 0xffffffff > 3", (stream,))
        kept = "(SELECT hash FROM chunk WHERE id = ?2)"
        raw.execute(f"UPDATE stream SET head = 3, hash = {kept} WHERE id = ?1", (stream, stream << 32 | 3))
    code, row = place.verified(capsys)
    assert (code, row["ok"], row["checked"]) == (0, True, 3), "every hash in the database is right"
    code, row = place.verified(capsys, *place.trusted)
    assert (code, row["ok"], row["bad"], row["bad_last"], row["reason"]) == (4, False, 4, 5, "cut off")


def test_what_somebody_wrote_without_the_key_is_named_though_every_checksum_is_right(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(connect(place.database)) as raw:
        (stream,) = next(raw.execute("SELECT id FROM stream WHERE name = 'a'"))
        columns = "id, n, flags, crc, hash, body, marks"
        (values,) = raw.execute(f"SELECT {columns} FROM chunk WHERE id = ?", (stream << 32 | 3,))
        batch = decode_chunk(ChunkRow(*values), sealed=True)
        forged = replace(batch, body=b'{"kind":"message","time":1,"text":"forged"}')
        row = encode_chunk(stream, forged, key=StreamKey(bytes(32), stream, 1))
        raw.execute("UPDATE chunk SET body = ?, crc = ? WHERE id = ?", (row.body, row.crc, row.key))
    code, found = place.verified(capsys, *place.trusted)
    assert (code, found["ok"], found["bad"], found["bad_last"]) == (4, False, 3, 3)


def test_a_stream_whose_key_is_gone_is_named_and_the_others_are_verified(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(connect(place.database)) as raw:
        raw.execute("DELETE FROM stream_key WHERE stream_id = (SELECT id FROM stream WHERE name = 'a')")
    code, found = place.verified(capsys, *place.trusted)
    assert (code, found["ok"]) == (4, False)
    code, found = place.verified(capsys, *place.trusted, of="ended")
    assert (found["ok"], found["covered"]) == (True, 1)
