"""Redaction of a real server: what comes in over any face is in no file and reaches nobody with its secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from tests.integration.secrets.conftest import files_with
from tests.support.canary import plant
from tests.support.inprocess import served
from tests.support.server import ServerProcess
from unbroken import Client, NewMessage, RunContext, Unbroken, task
from unbroken.checkpoints.book import FILE_NAME
from unbroken.checkpoints.notes import generate
from unbroken.errors import ConfigurationError
from unbroken.redaction.redactor import Redactor, load_rules
from unbroken.runs.catalog import Catalog
from unbroken.runs.task import Tasks
from unbroken.store.keys import MasterKeys, new_master_key
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

CEILING = 60.0
SECRET = "sk-" + "a1B2" * 8


async def test_no_face_lets_a_secret_through(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, arguments=["--redact", "secrets"])
    async with (
        server,
        httpx2.AsyncClient(base_url=server.url) as http,
        Client(server.url) as client,
        asyncio.timeout(CEILING),
    ):
        created = await http.put("/v1/streams/a", json={"metadata": {"note": SECRET}})
        assert created.json()["metadata"] == {"note": "[hidden]"}
        await http.post("/v1/messages/a", json={"messages": [{"text": f"one {SECRET}"}]})
        await client.append("a", f"two {SECRET}")
        await client.append("a", {"three": SECRET})
        async with client.producer("a", id="p") as producer:
            await producer.append([f"four {SECRET}", f"five {SECRET}"])
        await http.put("/v1/stream/d", headers={"content-type": "text/plain"}, content=f"six {SECRET} ")
        await http.post("/v1/stream/d", headers={"content-type": "text/plain"}, content=f"seven {SECRET}")
        await http.put(
            "/v1/stream/j", headers={"content-type": "application/json"}, content=f'[{{"eight": "{SECRET}"}}]'
        )
        await http.post("/v1/messages/m", json={"create": {"metadata": {"m": SECRET}}, "messages": [{"text": SECRET}]})
        await client.create("w", metadata={"note": SECRET})
        await http.post("/v1/close/m", json={"state": "failed", "reason": {"why": SECRET}})
        await client.put_session("s", metadata={"note": SECRET})
        await client.close("a", reason={"why": SECRET})
        read = await client.read("a")
        assert [message.text for message in read.messages if isinstance(message.text, str)][:2] == [
            "one [hidden]",
            "two [hidden]",
        ]
        assert bytes(read.stream.reason) == b'{"why":"[hidden]"}'
        assert (await http.get("/v1/stream/d")).text == "six [hidden] seven [hidden]"
        assert 'unbroken_redactions_total{rule="sk"} 15.0' in (await http.get("/metrics")).text
        assert files_with(tmp_path, SECRET) == []
        assert files_with(tmp_path, "six [hidden]") or files_with(tmp_path, "one [hidden]"), (
            "the search finds what is there"
        )
        assert (await client.verify("a")).bad is None
    assert SECRET not in server.output


async def test_no_kind_that_a_client_gives_its_stream_lets_a_secret_through(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, arguments=["--redact", "secrets"])
    async with server, Client(server.url) as client, asyncio.timeout(CEILING):
        for kind in ("file", "task", "program", "stream"):
            await client.create(kind, kind=kind)
            await client.append(kind, f"one {SECRET}")
            async with client.producer(kind, id="p") as producer:
                await producer.append([f"two {SECRET}"])
            assert [message.text for message in (await client.read(kind)).messages] == ["one [hidden]", "two [hidden]"]
        assert files_with(tmp_path, SECRET) == []


async def test_reasons_labels_and_the_audit_file_hold_no_secret(tmp_path: Path) -> None:
    rules, audit = tmp_path / "rules.toml", tmp_path / "audit"
    rules.write_text("[patterns]\ncustomer = 'CUST-[0-9]{8}'\n", encoding="utf-8")
    arguments = ["--redact", "secrets", "--redact", str(rules), "--audit", str(audit)]
    server = ServerProcess(tmp_path, arguments=arguments)
    customer = "CUST-" + "1234" * 2
    async with server, httpx2.AsyncClient(base_url=server.url) as http, asyncio.timeout(CEILING):
        await http.put("/v1/streams/a")
        erased = await http.post("/v1/erasures", json={"stream": "a", "reason": f"leaked {SECRET} of {customer}"})
        assert erased.json()["streams"] == 1
        assert (await http.get("/v1/streams/a")).json()["erased"]["reason"] == "leaked [hidden] of [hidden]"
        made = await http.post("/v1/tokens", json={"label": f"{SECRET} {customer}"})
        assert made.json()["label"] == "[hidden] [hidden]"
        await http.put(f"/v1/sessions/{SECRET}", json={})  # names stay as they are, but not in the audit file
        assert (await http.get(f"/v1/sessions/{SECRET}")).status_code == 200
        for text in (SECRET, customer):
            assert text not in audit.read_text(encoding="utf-8")
        assert "leaked [hidden]" in audit.read_text(encoding="utf-8")
        assert files_with(tmp_path, customer) == []
    assert SECRET not in server.output


async def test_a_reason_for_erasing_holds_no_credential_though_nothing_else_is_redacted(server: ServerProcess) -> None:
    async with Client(server.url) as client, asyncio.timeout(CEILING):
        await client.create("a")
        await client.erase("a", f"leaked {SECRET}")
        view = await client.state("a")
        assert b"leaked [hidden]" in msgspec.json.encode(view)


async def test_the_files_of_runs_are_kept_as_they_are() -> None:
    async def work(run: RunContext) -> str:
        kept = await run.file(f"key {SECRET}".encode(), "report.txt")
        return kept.stream

    tasks = Tasks([task(work)])
    async with served(catalog=Catalog([tasks])) as server, asyncio.timeout(CEILING):
        server.services.use_redactor(Redactor(load_rules(["secrets"])))
        await server.answer(201, "POST", "/v1/runs", json={"task": "work", "name": "r"})
        while (await server.answer(200, "GET", "/v1/streams/r"))["state"] != "completed":
            await asyncio.to_thread(lambda: None)
        name = (await server.answer(200, "GET", "/v1/messages/r"))["messages"][-1]["json"]["value"]
        assert (await server.client.get(f"/v1/content/{name}")).content == f"key {SECRET}".encode()


async def test_without_the_setting_everything_is_kept_as_it_came(server: ServerProcess) -> None:
    async with Client(server.url) as client, asyncio.timeout(CEILING):
        await client.create("a")
        await client.append("a", SECRET)
        assert (await client.read("a")).messages[0].text == SECRET


async def test_an_application_redacts_with_a_function_of_its_own() -> None:
    def shout(message: NewMessage) -> NewMessage:
        return NewMessage(kind=message.kind, text=str(message.text).upper())

    unbroken = Unbroken("memory:")
    unbroken.protect(redactor=Redactor(load_rules(["secrets"]), hook=shout))

    async def source() -> AsyncIterator[str]:
        yield f"say {SECRET}"

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        assert [item.message.text async for item in unbroken.follow("a")] == ["SAY [HIDDEN]"]
        assert b'unbroken_redactions_total{rule="hook"} 1.0' in unbroken.services.metrics.expose()


async def test_what_protects_an_application_stays_when_something_else_protects_it_too(tmp_path: Path) -> None:
    unbroken = Unbroken(f"sqlite:///{tmp_path}/x.db")
    key = str(generate(tmp_path / "key", "example.com/fake"))
    unbroken.protect(redactor=Redactor(load_rules(["secrets"])))
    unbroken.protect(checkpoints=tmp_path / "notes", checkpoint_key=tmp_path / "key")
    unbroken.protect(wrapping=MasterKeys.parse(new_master_key()))
    plain = plant("plain-" + "e83a" * 6)

    async def source() -> AsyncIterator[str]:
        yield f"say {SECRET} {plain}"

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        assert [item.message.text async for item in unbroken.follow("a")] == [f"say [hidden] {plain}"]
    assert files_with(tmp_path, plain) == []
    assert key.partition("+")[0] in (tmp_path / "notes" / FILE_NAME).read_text(encoding="utf-8")


async def test_keys_for_a_store_of_the_applications_own_are_not_left_unused() -> None:
    with pytest.raises(ConfigurationError, match="store of your own"):
        Unbroken(MemoryStore()).protect(wrapping=MasterKeys.parse(new_master_key()))
