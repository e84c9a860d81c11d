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

from tests.support.server import ServerProcess

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
    for text in (path.read_text(encoding="utf-8"), server.output):
        assert "planted-" not in text
    assert "unbroken.audit" in server.output
