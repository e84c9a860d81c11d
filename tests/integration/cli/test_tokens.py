"""`unbroken token` on a database that a server uses, and `unbroken share`: what a secret opens until it is revoked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.server import ServerProcess
from unbroken.cli.app import execute
from unbroken.client import Client, SyncClient
from unbroken.client.tokens import MadeToken
from unbroken.errors import ForbiddenError, NotFoundError, UnauthorizedError
from unbroken.identity import Grant, Verb
from unbroken.store.keys import new_master_key

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-002")]


async def test_keys_are_made_used_listed_and_revoked_while_a_server_runs(tmp_path: Path) -> None:
    operator = "only-for-this-test"
    async with ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": operator}) as server:
        commands = Commands(tmp_path / "home", server.url, UNBROKEN_STORE=f"sqlite:///{server.database}")
        alice = (await commands("token", "create", "--subject", "alice")).text.strip()
        limited = await commands(
            *("token", "create", "--subject", "alice", "--prefix", "log/", "--verb", "append", "--verb", "read"),
            *("--expires", "2h", "--label", "worker", "--json"),
        )
        worker = limited.objects[0]
        async with Client(server.url, token=alice) as own, Client(server.url, token=worker["token"]) as helper:
            await helper.create("log/1")
            assert [view.stream for view in (await own.list()).streams] == ["log/1"]
            with pytest.raises(ForbiddenError):
                await helper.cancel("log/1")
            with pytest.raises(NotFoundError):
                await helper.state("other")
            made = await own.tokens.create([Grant("log/1", frozenset({Verb.READ}))], label="phone", expires_in=60)
            assert "ubk_" not in repr(made)
            labels = [(one.label, one.expires is None) for one in (await own.tokens.list()).tokens]
            assert labels == [("phone", False), ("worker", False), ("", True)]
            await own.tokens.revoke(made.id)
            listed = await commands("token", "list", "--subject", "alice", "--json")
            assert [one["grants"] for one in listed.objects] == [["append+read log/*"], None]
            table = await commands("token", "list", "--subject", "alice")
            assert "worker" in table.text
            assert worker["token"][4:] not in table.text + listed.text
            missing = await commands("token", "revoke", worker["id"], "--subject", "bob")
            assert (missing.status, "error[not_found]" in missing.err) == (5, True)
            assert (await commands("token", "revoke", worker["id"], "--subject", "alice")).status == 0
            with pytest.raises(UnauthorizedError):
                await helper.state("log/1")
        assert alice not in server.output
        assert worker["token"] not in server.output


async def test_the_tokens_of_an_encrypted_database_are_made_listed_and_revoked_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text(new_master_key(), encoding="ascii")
    key.chmod(0o600)
    monkeypatch.delenv("UNBROKEN_ENCRYPTION_KEY", raising=False)
    monkeypatch.delenv("UNBROKEN_ENCRYPTION_KEY_FILE", raising=False)

    async def token(*arguments: str) -> tuple[int, str]:
        whose = ["--subject", "alice", "--store", f"sqlite:///{server.database}", "--json"]
        status = await asyncio.to_thread(execute, ["token", *arguments, *whose])
        told = capsys.readouterr()
        assert key.read_text("ascii").partition(":")[2] not in told.out + told.err
        return status, told.out or told.err

    async with ServerProcess(tmp_path, arguments=["--encryption-key-file", str(key)]) as server:
        status, told = await token("create")
        assert (status, "the database is encrypted" in told) == (78, True), told
        status, told = await token("create", "--encryption-key-file", str(key))
        assert status == 0, told
        made = json.loads(told)
        async with Client(server.url, token=made["token"]) as own:
            await own.create("a")
            monkeypatch.setenv("UNBROKEN_ENCRYPTION_KEY", key.read_text("ascii"))
            status, told = await token("list")
            assert (status, json.loads(told)["id"]) == (0, made["id"])
            assert await token("revoke", made["id"]) == (0, "")
            with pytest.raises(UnauthorizedError):
                await own.state("a")


async def test_what_the_operator_does_to_tokens_is_in_the_audit_log_without_a_secret(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        await server.terminate()
    file = tmp_path / "audit.jsonl"
    commands = Commands(tmp_path / "home", server.url, UNBROKEN_STORE=f"sqlite:///{server.database}")
    made = await commands("token", "create", "--subject", "alice", "--label", "phone", "--json", "--audit", str(file))
    found = made.objects[0]
    await commands("token", "list", "--subject", "alice", "--audit", str(file))
    for what in ((found["id"], "--subject", "alice"), ("--jti", "7"), ("--subject", "alice")):
        assert (await commands("token", "revoke", *what, "--audit", str(file))).status == 0
    missing = await commands("token", "revoke", found["id"], "--subject", "alice", "--audit", str(file))
    assert missing.status == 5, "what was not there is no deed"
    refused = await commands("token", "create", "--audit", str(tmp_path / "no" / "folder"))
    assert (refused.status, "error[configuration]" in refused.err) == (78, True), refused.err
    entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    credential = f"token:{found['id']}"
    assert [(entry["event"], entry.get("credential"), entry.get("owner")) for entry in entries] == [
        ("token_made", credential, "alice"),
        ("token_revoked", credential, "alice"),
        ("token_revoked", "jwt:7", None),
        ("token_revoked", None, "alice"),
    ]
    assert found["token"] not in file.read_text(encoding="utf-8")


async def test_a_shared_link_reads_one_stream_until_its_end(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        commands = Commands(tmp_path / "home", server.url)
        async with Client(server.url) as own:
            await own.create("a/b c")
            await own.create("other")
            done = await commands("share", "a/b c", "--expires", "1h")
            url, _, secret = done.text.strip().partition("?token=")
            assert url == f"{server.url}/#/stream/a/b%20c"
            assert secret.startswith("ubl_")
            async with Client(server.url, token=secret) as viewer:
                assert (await viewer.state("a/b c")).stream == "a/b c"
                for name in ("other", "nothing"):
                    with pytest.raises(NotFoundError):
                        await viewer.state(name)
                with pytest.raises(ForbiddenError):
                    await viewer.close("a/b c")
                with pytest.raises(ForbiddenError):
                    await viewer.tokens.create()
                ids, again = await asyncio.to_thread(blocking, server.url, "a/b c")
                assert ids == [again.id, json_id(done.err)]
                await own.delete("a/b c")
                await own.create("a/b c")
                with pytest.raises(NotFoundError):
                    await viewer.state("a/b c")


def blocking(url: str, name: str) -> tuple[list[str], MadeToken]:
    """The same without a loop."""
    with SyncClient(url) as client:
        gone, again = client.tokens.share(name), client.tokens.share(name, expires_in=60)
        client.tokens.revoke(gone.id)
        return [one.id for one in client.tokens.list().tokens], again


def json_id(note: str) -> str:
    return note.partition("the id is ")[2].partition(";")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--expires", "soon"),
        ("revoke", "x", "--jti", "y"),
    ],
)
async def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = await Commands(tmp_path, "http://127.0.0.1:9")("token", *arguments)
    assert done.status == 2, done


async def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = await Commands(tmp_path, "http://127.0.0.1:9")("token", "create", "--store", f"sqlite:///{tmp_path}/none.db")
    assert (done.status, (tmp_path / "none.db").exists()) == (5, False)
