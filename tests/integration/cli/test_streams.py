"""append, tail and the verbs about streams, as real processes against a real server."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import Commands, finish
from tests.support.database import connect
from tests.support.emptied import emptied
from tests.support.server import ServerProcess
from unbroken.messages import StreamId
from unbroken.store.chunks import ChunkRow, decode_chunk, encode_chunk

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(shared: ServerProcess) -> ServerProcess:
    """The file's one server, as good as new."""
    return await emptied(shared)


VIEW = {"stream", "epoch", "state", "first", "head", "cursor", "kind", "content_type", "created", "updated", "bytes"}


def lines(count: int, start: int = 0) -> bytes:
    return b"".join(b"line %d\n" % n for n in range(start, count))


async def test_what_is_piped_into_append_comes_out_of_tail_byte_by_byte(commands: Commands) -> None:
    text = lines(20_000) + "Grüße 😀\n\n".encode() + b"\xff\xfe not text\nno line end"
    done = await commands("append", "log", "--create", "--close", "--json", stdin=text)
    assert done.status == 0
    assert done.objects == [{"stream": "log", "acknowledged": 20_004, "cancelled": False}]
    raw = await commands("tail", "log", "--raw")
    assert (raw.status, raw.out) == (0, text)
    shown = (await commands("tail", "log", "--json", "--after", "last:3")).objects
    assert [m["seq"] for m in shown[:-1]] == [20_002, 20_003, 20_004]
    assert shown[0]["text"] == "\n"
    assert base64.b64decode(shown[1]["data"]) == b"\xff\xfe not text\n"
    assert set(shown[0]) == {"type", "stream", "epoch", "seq", "cursor", "kind", "time", "producer", "text"}
    assert shown[-1] == {
        "type": "state",
        "stream": "log",
        "state": "completed",
        "reason": {},
        "cursor": shown[-2]["cursor"],
    }
    after = await commands("tail", "log", "--json", "--after", shown[1]["cursor"])
    assert [m.get("text") for m in after.objects[:-1]] == ["no line end"]


async def test_a_line_longer_than_a_message_arrives_in_pieces(commands: Commands) -> None:
    line = ("\x01é" * 700_000).encode()
    done = await commands("append", "log", "--create", stdin=line)
    assert done.status == 0
    assert (await commands("tail", "log", "--raw")).out == line


async def test_one_message_from_the_command_line_or_a_file(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\0\1\2")
    assert (await commands("append", "log", "--create", "--text", "hello")).text == "1 messages acknowledged by log\n"
    assert (await commands("append", "log", "--value", '{"a": [1, 2]}', "--kind", "result")).status == 0
    assert (await commands("append", "log", "--data-file", str(tmp_path / "blob"))).status == 0
    assert (await commands("append", "log", "--ndjson", stdin=b'{"n":1}\n\n[2]\n')).text.startswith("2 messages")
    shown = (await commands("tail", "log", "--json")).objects[:-1]
    payloads = [m.get("text", m.get("json", m.get("data"))) for m in shown]
    assert payloads == ["hello", {"a": [1, 2]}, "AAEC", {"n": 1}, [2]]
    assert [m["kind"] for m in shown] == ["message", "result", "message", "message", "message"]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["append", "nowhere", "--text", "x"], 5, "not_found"),
        (["append", "log", "--text", "x"], 1, "ended"),
        (["append", "log", "--value", "{"], 65, "invalid"),
        (["append", "log", "--text", "x", "--value", "1"], 2, "usage"),
        (["append", "../log", "--create", "--text", "x"], 65, "invalid"),
        (["show", "nowhere"], 5, "not_found"),
        (["tail", "nowhere"], 5, "not_found"),
        (["tail", "nowhere", "--follow"], 5, "not_found"),
        (["tail", "log", "--after", "9:1"], 1, "epoch_mismatch"),
        (["tail", "log", "--after", "tomorrow"], 65, "invalid"),
        (["cancel", "nowhere"], 5, "not_found"),
        (["close", "log"], 1, "ended"),
        (["close", "log", "--reason", "why"], 65, "invalid"),
        (["delete", "nowhere"], 5, "not_found"),
        (["verify", "nowhere"], 5, "not_found"),
        (["ls", "--token-file", "/nonexistent"], 78, "configuration"),
        (["ls", "--server", "ftp://x"], 65, "invalid"),
    ],
)
async def test_errors_have_a_code_a_cure_and_an_exit_code(
    commands: Commands, arguments: list[str], status: int, code: str
) -> None:
    await commands("append", "log", "--create", "--close", "--text", "x")
    done = await commands(*arguments)
    assert done.status == status, done.err
    assert done.out == b""
    assert f"error[{code}]: " in done.err
    assert "\ncure: " in done.err
    assert "Traceback" not in done.err


async def test_a_server_that_does_not_answer_is_said(tmp_path: Path) -> None:
    commands = Commands(tmp_path, "http://127.0.0.1:9")
    for arguments in (["ls"], ["show", "x"], ["tail", "x"]):
        done = await commands(*arguments)
        assert done.status == 69
        assert "error[unreachable]: " in done.err
        assert "unbroken serve" in done.err


async def test_ls_show_close_and_delete_say_what_programs_rely_on(commands: Commands) -> None:
    for name in ("a/1", "a/2", "b"):
        await commands("append", name, "--create", "--session", "s", "--text", name)
    assert (await commands("close", "a/2", "--state", "failed", "--reason", '{"exit_code": 2}')).status == 0
    listed = (await commands("ls", "--json")).objects
    assert [view["stream"] for view in listed] == ["b", "a/2", "a/1"]
    assert all(set(view) >= VIEW for view in listed)
    assert [v["stream"] for v in (await commands("ls", "--json", "--prefix", "a/")).objects] == ["a/2", "a/1"]
    assert [v["stream"] for v in (await commands("ls", "--json", "--ended")).objects] == ["a/2"]
    assert [v["stream"] for v in (await commands("ls", "--json", "--active", "-n", "1")).objects] == ["b"]
    assert (await commands("ls", "--json", "--session", "other")).out == b""
    shown = (await commands("show", "a/2", "--json")).objects[0]
    assert (shown["state"], shown["reason"], shown["session"]) == ("failed", {"exit_code": 2}, "s")
    table = (await commands("ls")).text.splitlines()
    assert table[0].split() == ["STREAM", "STATE", "MESSAGES", "SIZE", "UPDATED", "(UTC)", "SESSION"]
    assert "\x1b" not in "".join(table)
    assert (await commands("delete", "b", "--dry-run", "--json")).objects[0]["deleted"] is False
    assert (await commands("show", "b")).status == 0
    assert (await commands("delete", "b")).status == 0
    assert (await commands("show", "b")).status == 5


async def test_a_list_longer_than_a_page_is_listed_whole(commands: Commands) -> None:
    assert (await commands("append", "s", "--create", "--text", "x")).status == 0
    for number in range(3):
        assert (await commands("append", f"n/{number}", "--create", "--text", "x")).status == 0
    done = await commands("ls", "-n", "3")
    assert len(done.text.splitlines()) == 4
    assert "use --limit" in done.err


@pytest.mark.parametrize(("state", "status"), [("completed", 0), ("failed", 3), ("cancelled", 3), ("timed_out", 3)])
async def test_tail_exits_as_the_stream_ended(commands: Commands, state: str, status: int) -> None:
    await commands("append", "log", "--create", "--text", "x\n")
    assert (await commands("tail", "log")).status == 0, "a stream that goes on is no failure"
    process = await commands.start("tail", "log", "--follow")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"x\n"
    await commands("close", "log", "--state", state)
    assert (await finish(process)).status == status
    assert (await commands("tail", "log")).status == status


async def test_a_cancel_of_a_stream_without_a_producer_ends_it(commands: Commands) -> None:
    await commands("append", "log", "--create", "--text", "x")
    assert (await commands("cancel", "log", "--json")).objects[0]["state"] == "cancelled"


async def test_a_cancel_stops_an_append_that_holds_the_lease(commands: Commands) -> None:
    process = await commands.start("append", "log", "--create", "--close", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"one\n")
    async with asyncio.timeout(30):
        while b"one" not in (await commands("tail", "log")).out:
            pass
    await commands("cancel", "log")
    process.stdin.write(b"two\n")
    done = await finish(process)
    assert done.status == 3
    assert (await commands("show", "log", "--json")).objects[0]["state"] == "cancelled"


async def test_tail_cannot_control_the_terminal_unless_asked(commands: Commands) -> None:
    await commands("append", "log", "--create", "--text", "\x1b]0;owned\x07red \x1b[31mtext\x1b[0m\rover\n")
    assert (await commands("tail", "log")).out == b"red text\nover\n"
    assert b"\x1b]0;owned" in (await commands("tail", "log", "--raw")).out


async def test_a_reader_that_leaves_early_is_no_error(commands: Commands) -> None:
    await commands("append", "log", "--create", stdin=lines(50_000))
    reading, writing = os.pipe()
    process = await commands.start("tail", "log", stdout=writing)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    done = await finish(process)
    assert (done.status, done.err) == (0, "")


async def test_ctrl_c_ends_tail_quietly(commands: Commands) -> None:
    await commands("append", "log", "--create", "--text", "x\n")
    process = await commands.start("tail", "log", "--follow")
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    done = await finish(process)
    assert done.status == 130
    assert "Traceback" not in done.err


async def test_append_and_tail_go_on_over_a_killed_server(commands: Commands, server: ServerProcess) -> None:
    """Both stay connected for one stream while the server is killed three times; nothing is lost or doubled."""
    before = server.starts
    await commands("append", "log", "--create", "--text", "")
    appending = await commands.start("append", "log", "--json", "--close", stdin=asyncio.subprocess.PIPE)
    tailing = await commands.start("tail", "log", "--follow", "--raw")
    assert appending.stdin is not None
    assert tailing.stdout is not None
    received = b""
    for part in range(4):
        appending.stdin.write(lines((part + 1) * 500, part * 500))
        while received.count(b"\n") < part * 500 + 250:
            received += await tailing.stdout.readline()
        if part < 3:
            await server.restart(kill=True)
    done = await finish(appending, stdin=b"")
    assert done.objects[0]["acknowledged"] == 2000
    tailed = await finish(tailing)
    assert tailed.status == 0
    assert received + tailed.out == lines(2000)
    assert "connected again" in tailed.err
    assert server.starts == before + 3


@pytest.mark.parametrize("skilled", [False, True])
async def test_verify_finds_what_was_changed_below_the_server(
    commands: Commands, server: ServerProcess, skilled: bool
) -> None:
    """A message is overwritten in the file, by somebody who mends the row's checksum or does not."""
    await commands("append", "good", "--create", stdin=lines(100))
    await commands("append", "bad", "--create", stdin=lines(100))
    done = await commands("verify", "--all", "--json")
    assert done.status == 0
    assert {(row["stream"], row["ok"], row["checked"]) for row in done.objects} == {
        ("good", True, 100),
        ("bad", True, 100),
    }
    await server.terminate()
    change_a_message(server.database, b"line 50", skilled=skilled)
    store = f"sqlite:///{server.database}"
    offline = await commands("verify", "--all", "--json", "--store", store)
    assert offline.status == 4, offline.err
    assert {row["stream"]: row["ok"] for row in offline.objects} == {"good": True, "bad": False}
    people = await commands("verify", "bad", "--store", store)
    assert people.status == 4
    assert people.text.startswith("bad: TAMPERED: message 51 is not" if skilled else "bad: CORRUPT\n")
    if skilled:
        row = offline.objects[0] if offline.objects[0]["stream"] == "bad" else offline.objects[1]
        assert (row["bad"], row["bad_last"]) == (51, 51)
    await server.start()
    assert (await commands("verify", "bad")).status == 4
    assert (await commands("verify", "good")).status == 0


def change_a_message(database: Path, text: bytes, *, skilled: bool) -> None:
    """Overwrite a stored message with another of the same length, as somebody with access to the file could."""
    connection = connect(database)
    columns = "id, n, flags, crc, hash, body, marks"
    rows = [ChunkRow(*row) for row in connection.execute(f"SELECT {columns} FROM chunk ORDER BY id DESC")]
    row = next(row for row in rows if text in row.body)
    changed = row._replace(body=row.body.replace(text, b"LINE 50"))
    if skilled:
        batch = decode_chunk(row)
        body = batch.body.replace(text, b"LINE 50")
        changed = encode_chunk(StreamId(row.key >> 32), replace(batch, body=body))
    update = "UPDATE chunk SET n = ?, flags = ?, crc = ?, hash = ?, body = ?, marks = ? WHERE id = ?"
    connection.execute(update, (*changed[1:], changed.key))
    connection.close()


async def test_a_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("right-one\n")
    async with ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": "right-one"}) as server:
        nobody = Commands(tmp_path / "home", server.url)
        for arguments in (["ls"], ["append", "x", "--create", "--text", "y"], ["tail", "x", "--follow"], ["show", "x"]):
            refused = await nobody(*arguments)
            assert refused.status == 77, refused.err
            assert "error[unauthorized]" in refused.err
        assert (await nobody("ls", "--token-file", str(tmp_path / "token"))).status == 0
        known = Commands(tmp_path / "home", server.url, UNBROKEN_TOKEN="right-one")
        assert (await known("append", "x", "--create", "--text", "y")).status == 0
        assert (await known("tail", "x")).text.strip() == "y"
