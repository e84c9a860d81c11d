"""Files as results: whole before anybody is told of them, one for the same bytes, and gone with their run."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.integration.runs.test_recovery import follow, serving
from tests.integration.runs.test_supervised import LIMITS, all_tasks, ended, messages, start, until
from tests.support import tasks as module
from tests.support.inprocess import Served, served
from unbroken import Client, SyncClient
from unbroken.client.runs import RunOptions
from unbroken.errors import CorruptError, InvalidError, NotFoundError, TransitionError
from unbroken.identity import Principal, Verb
from unbroken.runs.files import CHUNK_BYTES, NewFile, keep

pytestmark = pytest.mark.anyio

T = TypeVar("T")
SOURCE = Path(module.__file__).read_bytes()


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served(limits=LIMITS, catalog=all_tasks()) as running:
        yield running


def files(found: list[Any]) -> list[Any]:
    return [one["json"] for one in found if one.get("kind") == "file"]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def content(server: Served, stream: str) -> Any:
    return await server.client.get(f"/v1/content/{stream}")


async def test_a_file_is_told_of_when_it_is_durable_and_downloads_as_it_was(server: Served) -> None:
    await start(server, "reporting", lines=100_000)
    assert (await ended(server))["state"] == "completed"
    report, source = files(await messages(server))
    written = "".join(f"{number},{number**2}\n" for number in range(100_000)).encode()
    assert len(written) > 4 * CHUNK_BYTES
    digest = hashlib.sha256(written).hexdigest()
    assert (report["name"], report["media_type"], report["bytes"]) == ("report.csv", "text/csv", len(written))
    assert (report["sha256"], report["stream"]) == (digest, f"r/files/{digest[:16]}/report.csv")
    kept = await server.answer(200, "GET", f"/v1/streams/{report['stream']}")
    assert (kept["kind"], kept["state"], kept["metadata"]["sha256"]) == ("file", "completed", digest)
    response = await content(server, report["stream"])
    assert response.content == written
    assert (await content(server, source["stream"])).content == SOURCE
    assert (source["name"], source["media_type"]) == ("tasks.py", "text/x-python")
    headers = response.headers
    assert headers["content-type"] == "text/csv"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''report.csv"
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["x-content-type-options"] == "nosniff"
    head = await server.client.head(f"/v1/content/{report['stream']}")
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", "text/csv")


@pytest.mark.parametrize("task", ["reporting_threaded", "reporting_processed"])
async def test_a_function_that_blocks_stores_files_too(server: Served, task: str) -> None:
    await start(server, task, lines=500_000)
    view = await ended(server)
    found = await messages(server)
    assert view["state"] == "completed", found
    assert found[-1]["json"]["value"] == files(found)[-1]["stream"]
    assert (await content(server, files(found)[-1]["stream"])).content == b"1\n" * 500_000


async def test_the_same_file_stored_twice_is_told_of_once(server: Served) -> None:
    await start(server, "reporting", lines=10)
    await start(server, "reporting_twice", "twice")
    assert (await ended(server, "twice"))["state"] == "completed"
    found = files(await messages(server, "twice"))
    assert [(one["name"], one["bytes"]) for one in found] == [("a", 1), ("b", 1), ("a", 2)]


async def test_a_file_that_changes_while_it_is_read_is_refused_and_leaves_nothing(
    server: Served, tmp_path: Path
) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"1" * 10)
    await start(server, "stuck")
    run = await server.services.streams.get(Principal(), "r", may=Verb.READ)
    calls = 0

    async def growing(work: Callable[[], Awaitable[T]]) -> T:
        nonlocal calls
        calls += 1
        if calls == 1:
            path.write_bytes(b"1" * 11)
        return await work()

    with pytest.raises(InvalidError, match="changed"):
        await keep(server.services.streams, server.services.states, run, NewFile.of(path), growing)
    assert (await server.answer(200, "GET", "/v1/streams?kind=file"))["streams"] == []


async def test_an_empty_file_is_a_file(server: Served) -> None:
    await start(server, "reporting", lines=0)
    await ended(server)
    empty = files(await messages(server))[0]
    assert (empty["bytes"], empty["sha256"]) == (0, hashlib.sha256().hexdigest())
    assert (await content(server, empty["stream"])).content == b""


@pytest.mark.parametrize("name", ["", "a/b", "x" * 201, "a\nb", "..", "a\u202egpj.exe", "a\u200b.txt"])
async def test_a_name_that_is_none_fails_the_task(server: Served, name: str) -> None:
    await start(server, "reporting", lines=1, called=name)
    assert (await ended(server))["reason"] == {"error": "InvalidError", "code": "invalid"}
    assert [one["stream"] for one in (await server.answer(200, "GET", "/v1/streams"))["streams"]] == ["r"]


async def test_the_limits_of_size_and_number_are_kept_and_nothing_is_left() -> None:
    limits = replace(LIMITS, run_file_bytes_max=len(SOURCE) - 1, run_files_max=2)
    async with served(limits=limits, catalog=all_tasks()) as server:
        await start(server, "reporting", lines=1)
        assert (await ended(server))["reason"] == {"error": "TooLargeError", "code": "too_large"}
        assert len(files(await messages(server))) == 1
        listed = (await server.answer(200, "GET", "/v1/streams?kind=file"))["streams"]
        assert [one["state"] for one in listed] == ["completed"]
    async with served(limits=replace(LIMITS, run_files_max=1), catalog=all_tasks()) as server:
        await start(server, "reporting", lines=1)
        assert (await ended(server))["reason"] == {"error": "TooLargeError", "code": "too_large"}


async def test_a_run_that_is_deleted_takes_its_files_with_it_and_nothing_else(server: Served) -> None:
    for name in ("r", "r2"):
        await start(server, "reporting", name, lines=10)
        await ended(server, name)
    await server.create("r/files/of/mine", kind="stream")
    await server.answer(204, "DELETE", "/v1/streams/r")
    left = {one["stream"] for one in (await server.answer(200, "GET", "/v1/streams"))["streams"]}
    assert {name for name in left if not name.startswith("r2/files/")} == {"r2", "r/files/of/mine"}
    assert len(left) == 4


async def test_a_cancel_in_the_middle_of_a_file_leaves_nothing_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        await client.runs.task("reporting_threaded", {"lines": 20_000_000}, RunOptions(name="r"))
        await _filled(client, "r", messages_min=5)
        await client.cancel("r")
        _, state = await follow(client, "r")
        assert state.state == "cancelled"
        async with asyncio.timeout(20):
            while (await client.list(prefix="r/files/")).streams:
                await asyncio.sleep(0.02)


async def test_a_kill_in_the_middle_of_a_file_leaves_one_whole_file_in_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        await client.runs.task("restartable_report", {"bytes": 60_000_000}, RunOptions(name="r"))
        for kill in range(3):
            await _filled(client, "r", messages_min=10 * (kill + 1))
            await server.restart(kill=True)
        found, state = await follow(client, "r")
        assert state.state == "completed"
        (kept,) = [one.json for one in found if one.kind == "file"]
        assert len((await client.list(prefix="r/files/")).streams) == 1
        target = tmp_path / "saved"
        assert await client.download(kept["stream"], target) == 60_000_000
        assert hashlib.sha256(target.read_bytes()).hexdigest() == kept["sha256"]
        assert not [name for name in names(tmp_path) if name.startswith(".saved")]


async def _filled(client: Client, run: str, *, messages_min: int) -> None:
    """Wait until a file of the run has so many messages, and is not whole."""
    async with asyncio.timeout(40):
        while True:
            found = (await client.list(prefix=f"{run}/files/")).streams
            if found and found[0].head >= messages_min:
                assert found[0].state == "running", "the fault came too late"
                return
            await asyncio.sleep(0.005)


async def test_a_download_is_whole_and_what_was_stored_or_it_is_not_there(server: Served, tmp_path: Path) -> None:
    await start(server, "reporting", lines=10)
    await until(server, "file")
    await ended(server)
    stream = files(await messages(server))[0]["stream"]
    target = tmp_path / "report.csv"
    async with Client(f"http://127.0.0.1:{server.port}") as client:
        assert await client.download(stream, target) == files(await messages(server))[0]["bytes"]
        with pytest.raises(NotFoundError):
            await client.download("r/files/none", target)
        unfinished = {"kind": "file", "metadata": {"sha256": "00"}}
        await server.create("half", **unfinished)
        with pytest.raises(TransitionError):
            await client.download("half", tmp_path / "half")
        await server.append("half", "other bytes", close={"state": "completed"})
        with pytest.raises(CorruptError):
            await client.download("half", tmp_path / "half")
        await server.create("trimmed")
        await server.append("trimmed", "a", "b")
        await server.answer(200, "POST", "/v1/trim/trimmed", json={"first": 2})
        await server.problem(410, "trimmed", "GET", "/v1/content/trimmed")
    assert names(tmp_path) == ["report.csv"]

    def save() -> int:
        with SyncClient(f"http://127.0.0.1:{server.port}") as client:
            return client.download(stream, tmp_path / "again.csv")

    assert await asyncio.to_thread(save) == target.stat().st_size
