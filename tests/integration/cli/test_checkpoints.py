"""A real server makes checkpoints: with a key of `unbroken keygen`, across a kill and a graceful stop, one of each end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.support.commands import Commands
from tests.support.server import ServerProcess
from unbroken import Unbroken
from unbroken.checkpoints.book import FILE_NAME
from unbroken.errors import ConfigurationError

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INTEG-001")]


async def test_checkpoints_of_a_server_that_was_killed_hold_and_cover_everything(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "home", "")
    made = await commands("keygen", str(tmp_path / "key"), "--name", "example.com/fake")
    key, notes = made.text.strip(), tmp_path / "notes"
    assert made.status == 0
    assert re.fullmatch(r"example\.com/fake\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}", key)
    settings = {"UNBROKEN_CHECKPOINTS": str(notes), "UNBROKEN_CHECKPOINT_KEY": str(tmp_path / "key")}
    async with ServerProcess(tmp_path, environment=settings) as server:
        there = Commands(tmp_path / "home", server.url)
        assert (await there("append", "a", "--create", stdin=b"one\ntwo\n")).status == 0
        assert (await there("append", "b", "--create", "--close", stdin=b"three\n")).status == 0
        await until_noted(notes / FILE_NAME, "ended completed")
        await server.kill()
        await server.start()
        assert (await there("append", "a", stdin=b"four\n")).status == 0
        await server.terminate()
        store = ("--store", f"sqlite:///{server.database}", "--checkpoints", str(notes), "--key", key, "--json")
        found = await commands("verify", "--all", *store)
    assert found.status == 0, found.err
    assert {row["stream"]: row["covered"] for row in found.objects} == {"a": 3, "b": 1}
    assert all(b"four" not in file.read_bytes() for file in notes.iterdir()), "no contents"


async def test_an_application_signs_checkpoints_of_its_streams_and_of_their_ends(tmp_path: Path) -> None:
    commands, notes, database = Commands(tmp_path / "home", ""), tmp_path / "notes", tmp_path / "chat.db"
    key = (await commands("keygen", str(tmp_path / "key"), "--name", "example.com/chat")).text.strip()
    unbroken = Unbroken(f"sqlite:///{database}")
    unbroken.protect(checkpoints=notes, checkpoint_key=tmp_path / "key")

    async def answer() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    for name in "ab":
        async with unbroken.lifespan():
            await unbroken.start(answer(), name)
            assert [item.message.text async for item in unbroken.follow(name)] == ["one", "two"]
    store = ("--store", f"sqlite:///{database}", "--checkpoints", str(notes), "--key", key, "--json")
    found = await commands("verify", "--all", *store)
    assert found.status == 0, found.err
    assert {row["stream"]: row["covered"] for row in found.objects} == {"a": 2, "b": 2}


@pytest.mark.parametrize(("checkpoints", "key"), [("notes", None), (None, "key"), ("notes", "key")])
async def test_an_application_that_cannot_sign_is_told_before_it_starts(
    checkpoints: str | None, key: str | None, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError):
        Unbroken("memory:").protect(
            checkpoints=None if checkpoints is None else tmp_path / checkpoints,
            checkpoint_key=None if key is None else tmp_path / key,
        )


async def until_noted(path: Path, text: str) -> None:
    file = anyio.Path(path)
    with anyio.fail_after(60):
        while not (await file.exists() and text in await file.read_text(encoding="utf-8")):
            await anyio.sleep(0.05)
