"""The audit log of a real server: who was refused, who did what, how it was started, and no secret of anybody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.support.inprocess import served
from tests.support.parts import ALICE, running_parts
from tests.support.server import ServerProcess
from unbroken.auth.stored import NewToken
from unbroken.errors import NotFoundError
from unbroken.identity import Principal
from unbroken.observe.audit_events import Deed
from unbroken.store.base import Touch
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

TOKEN = "planted-" + "5e2a" * 6
WRONG = "planted-" + "9999" * 6


async def test_refusals_and_deeds_are_written_down_with_who_and_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    server = ServerProcess(
        tmp_path, arguments=["--audit", str(path), "--log-level", "debug"], environment={"UNBROKEN_TOKEN": TOKEN}
    )
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with server, httpx2.AsyncClient(base_url=server.url) as http, asyncio.timeout(90):
        for _ in range(3):
            bad = {"Authorization": f"Bearer {WRONG}"}
            assert (await http.get(f"/v1/streams?token={WRONG}", headers=bad)).status_code == 401
        assert (await http.get("/v1/streams", headers={"Host": "evil.example"})).status_code == 403
        protocols = [Subprotocol("unbroken.v1"), Subprotocol(f"ticket.{WRONG}")]
        with pytest.raises(InvalidStatus):
            await connect(f"{server.url.replace('http', 'ws')}/v1/ws?ticket={WRONG}", subprotocols=protocols)
        for verb, where in (("PUT", "streams"), ("POST", "cancel"), ("DELETE", "streams")):
            assert (await http.request(verb, f"/v1/{where}/a", headers=headers)).is_success
        for verb, body in (("PUT", {"state": "paused"}), ("DELETE", None)):
            assert (await http.request(verb, "/v1/sessions/s", headers=headers, json=body)).is_success
        await server.terminate()
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    first = entries[0]
    assert first["event"] == "configured"
    assert {"host=127.0.0.1", "token=set"} <= set(first["settings"])
    refused = [
        (entry["reason"], entry["face"]) for entry in entries if entry["event"] == "refused" and "more" not in entry
    ]
    assert refused == [("unauthorized", "http"), ("forbidden_origin", "http"), ("unauthorized", "websocket")]
    (more,) = [entry["more"] for entry in entries if "more" in entry]
    assert more == 2, "repetitions are a number"
    deeds = [entry for entry in entries if entry["event"] == "deed"]
    assert [(entry["verb"], entry.get("stream"), entry.get("session"), entry["by"]) for entry in deeds] == [
        ("cancel", "a", None, "local"),
        ("manage", "a", None, "local"),
        ("manage", None, "s", "local"),
        ("manage", None, "s", "local"),
    ]
    assert {(entry["owner"], entry["outcome"]) for entry in deeds} == {("local", "done")}
    for text in (path.read_text(encoding="utf-8"), server.output):
        assert "planted-" not in text
    assert "unbroken.audit" in server.output


DEEDS: tuple[tuple[str, str, dict[str, object] | None, tuple[str, str] | None], ...] = (
    ("PUT", "/v1/sessions/s", {}, ("put", "done")),
    ("PUT", "/v1/streams/a", {"session": "s"}, None),
    ("DELETE", "/v1/sessions/s", None, ("delete", "already_exists")),
    ("POST", "/v1/trim/a", {"first": 99}, ("trim", "invalid")),
    ("POST", "/v1/trim/a", {"first": 1}, ("trim", "done")),
    ("POST", "/v1/resume/a", {}, ("resume", "transition")),
    ("POST", "/v1/pause/a", {}, ("pause", "done")),
    ("POST", "/v1/resume/a", {}, ("resume", "done")),
    ("POST", "/v1/cancel/a", {}, ("cancel", "done")),
    ("POST", "/v1/cancel/a", {}, ("cancel", "unchanged")),
    ("POST", "/v1/pause/a", {}, ("pause", "ended")),
    ("POST", "/v1/erasures", {"stream": "a"}, ("erase", "done")),
    ("POST", "/v1/erasures", {"stream": "a"}, ("erase", "unchanged")),
    ("DELETE", "/v1/streams/a", None, ("delete", "done")),
    ("PUT", "/v1/stream/d", None, None),
    ("DELETE", "/v1/stream/d", None, ("delete", "done")),
)


async def test_each_deed_tells_whose_thing_it_was_and_how_it_ended() -> None:
    found: list[Deed] = []
    async with served() as server, asyncio.timeout(90):
        made = await server.services.tokens.make(Principal("acme", "alice"), NewToken(label="helper"))
        server.services.streams.deeds.on_deed = found.append
        for owner, by, headers in (
            ("local", "local", {}),
            ("alice", "helper", {"Authorization": f"Bearer {made.secret}"}),
        ):
            for method, path, body, told in DEEDS:
                found.clear()
                await server.client.request(method, path, json=body, headers=headers)
                assert [(deed.action, deed.outcome) for deed in found] == ([] if told is None else [told]), path
                for deed in found:
                    assert (deed.owner, deed.by.subject, deed.by.by) == (owner, owner, by)
                    assert (deed.verb == "cancel") is (deed.action == "cancel")


async def test_what_is_broken_off_may_have_happened_and_is_told_so() -> None:
    found: list[Deed] = []
    async with running_parts(MemoryStore()) as parts:
        parts.streams.deeds.on_deed = found.append
        stream = await parts.stream("a")
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(parts.streams.delete(stream, by=ALICE))
            await asyncio.sleep(0)
            leaving.cancel()
        with pytest.raises(NotFoundError):  # it did happen
            await parts.streams.log.write(Touch(stream=stream.id, now_ms=1))
        await parts.streams.delete(await parts.stream("b"))
    assert [(deed.action, deed.stream, deed.outcome) for deed in found] == [("delete", "a", "unknown_outcome")]
