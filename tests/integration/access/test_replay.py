"""What somebody has captured on its way is worth nothing when it is sent again (INTEG-002)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.house import ALICE, House, house
from unbroken.errors import UnauthorizedError

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INTEG-002")]

PRODUCER = {"id": "p", "epoch": 0, "seq": 0}
CAPTURED: list[dict[str, Any]] = [
    {"type": "create", "id": 1, "stream": "b"},
    {"type": "append", "id": 2, "stream": "b", "messages": [{"text": "one"}], "producer": PRODUCER},
    {"type": "append", "id": 3, "stream": "b", "messages": [{"text": "two"}], "producer": {**PRODUCER, "seq": 1}},
    {
        "type": "append",
        "id": 4,
        "stream": "b",
        "messages": [],
        "close": {"state": "completed"},
        "producer": {**PRODUCER, "seq": 2},
    },
]


async def played(made: House, token: str) -> list[dict[str, Any]]:
    async with made.peer(token) as peer:
        await peer.receive("hello")
        answers = []
        for frame in CAPTURED:
            await peer.send(**frame)
            answers.append(dict(await peer.receive("result", "acks", "error")))
        return answers


async def kept(made: House, name: str = "b") -> tuple[int, str]:
    stream = await made.server.services.store.get(ALICE, name)
    assert stream is not None
    return stream.head, stream.hash.hex()


async def test_the_frames_of_a_connection_sent_again_change_nothing() -> None:
    async with house() as made:
        first = await played(made, made.token())
        assert [answer["type"] for answer in first] == ["result", "acks", "acks", "acks"]
        before = await kept(made)
        again = await played(made, made.token(jti="two"))
        assert again[0]["created"] is False if "created" in again[0] else again[0]["type"] == "result"
        assert all(answer["acks"][0]["duplicate"] for answer in again[1:])
        assert await kept(made) == before
        mallory = await played(made, made.token("mallory", jti="three"))
        assert mallory[0]["created"], "in somebody else's hands the same names mean other things"
        assert await kept(made) == before


async def test_an_append_over_http_sent_again_changes_nothing() -> None:
    async with house() as made:
        body = json.dumps({"messages": [{"text": "one"}], "producer": PRODUCER}).encode()
        answers = [
            await made.client.post("/v1/messages/a", content=body, headers=made.headers(made.token())) for _ in range(3)
        ]
        assert [answer.json()["duplicate"] for answer in answers] == [False, True, True]
        assert (await kept(made, "a"))[0] == 1


async def test_a_handshake_with_a_ticket_sent_again_opens_nothing() -> None:
    async with house() as made:
        answer = await made.client.post("/v1/tickets", headers=made.headers(made.token()))
        offered = ["unbroken.v1", f"ticket.{answer.json()['ticket']}"]
        async with made.server.peer(subprotocols=offered) as peer:
            await peer.receive("hello")
        with pytest.raises(InvalidStatus) as refused:
            async with made.server.peer(subprotocols=offered):
                pass
        assert refused.value.response.status_code == 401
        with pytest.raises(UnauthorizedError):
            made.server.services.tickets.spend(answer.json()["ticket"], None)


async def test_a_captured_auth_frame_renews_nobody_elses_connection() -> None:
    async with house() as made, made.peer(made.token("mallory", jti="two")) as peer:
        await peer.receive("hello")
        await peer.send(type="auth", id=1, token=made.token(seconds=600))
        assert (await peer.receive("error", "authorized"))["code"] == "unauthorized"
        await peer.send(type="subscribe", id=2, stream="a")
        assert (await peer.receive("error", "subscribed"))["code"] == "not_found"


async def test_a_page_may_have_a_ticket_made_for_it_by_its_own_server() -> None:
    app = "https://app.example"
    async with house(allow_origins=frozenset({app})) as made:
        headers = made.headers(made.token())
        answer = await made.client.post("/v1/tickets", headers=headers, json={"origin": app})
        offered = ["unbroken.v1", f"ticket.{answer.json()['ticket']}"]
        async with made.server.peer(subprotocols=offered, origin=app) as peer:
            await peer.receive("hello")
        for origin, more in (("https://evil.example", {}), (app, {"Origin": made.server.url})):
            wrong = await made.client.post("/v1/tickets", headers={**headers, **more}, json={"origin": origin})
            assert wrong.json()["code"] == "invalid"
