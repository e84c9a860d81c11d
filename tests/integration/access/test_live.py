"""A live connection is as good as its credential: expiry, revocation and logging out close it, on every face."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus

from tests.support.house import ALICE, LIMITS, House, house
from tests.support.idp import signer
from tests.support.speeds import Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.identity import Grant, Principal, Verb
from unbroken.messages import NewMessage
from unbroken.requests import NewStream

pytestmark = pytest.mark.anyio


async def expire(made: House, token: str) -> None:
    made.clock.advance(65)


async def log_out(made: House, token: str) -> None:
    await made.log_out(token)


async def revoke(made: House, token: str) -> None:
    """As another process does it: only the store knows."""
    await made.server.services.tokens.revoke(replace(ALICE, credential="jwt:one"))


Ending = Callable[[House, str], Awaitable[None]]
ENDINGS = pytest.mark.parametrize("ending", [expire, log_out, revoke])


@pytest.mark.scenario("TC-EDGE-015", "SEC-002")
@pytest.mark.parametrize("speed", list(Speed))
@ENDINGS
async def test_a_websocket_ends_with_its_credential_and_says_why(speed: Speed, ending: Ending) -> None:
    async with house(speed) as made:
        token = made.token()
        async with made.peer(token) as peer, made.peer(made.token("bob", seconds=600, jti="two")) as other:
            assert 0 < (await peer.receive("hello"))["expires_seconds"] <= 65
            await other.receive("hello")
            await peer.send(type="subscribe", id=1, stream="a")
            await peer.receive("subscribed")
            await ending(made, token)
            error = await peer.receive("error")
            assert (error["code"], error.get("retryable", False)) == ("unauthorized", False)
            assert token not in json.dumps(error)
            assert await peer.closed() == 4401
            await other.send(type="subscribe", id=1, stream="a")
            assert (await other.receive("error"))["code"] == "not_found", "nobody else is sent away"
        with pytest.raises(InvalidStatus) as refused:
            async with made.peer(token):
                pass
        assert refused.value.response.status_code == 401
        await made.server.until("connections", 0)
        assert len(made.server.services.live) == 0


@ENDINGS
async def test_a_stream_of_events_ends_with_an_event_that_says_why(ending: Ending) -> None:
    async with house() as made:
        token = made.token()
        url = "/v1/messages/a?live=sse"
        async with asyncio.timeout(60), made.client.stream("GET", url, headers=made.headers(token)) as response:
            lines = response.aiter_lines()
            assert (await anext(lines)).startswith("retry:")
            await ending(made, token)
            rest = [line async for line in lines]
        told = [line for line in rest if line]
        assert told[-2] == "event: error"
        error = json.loads(told[-1].removeprefix("data: "))
        assert (error["code"], error["retryable"]) == ("unauthorized", False)
        assert (await made.client.get(url, headers=made.headers(token))).status_code == 401
        assert len(made.server.services.live) == 0


@pytest.mark.parametrize("path", ["/v1/messages/a?live=long-poll", "/v1/stream/a?live=long-poll&offset=now"])
@ENDINGS
async def test_a_long_poll_ends_with_401(path: str, ending: Ending) -> None:
    async with house() as made, asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        token = made.token()
        asked = tasks.create_task(made.client.get(path, headers=made.headers(token)))
        while not made.server.services.live:
            await asyncio.sleep(0.005)
        await ending(made, token)
        answer = await asked
        assert answer.status_code == 401, answer.text
        assert answer.json()["code"] == "unauthorized"


@ENDINGS
async def test_events_of_durable_streams_end(ending: Ending) -> None:
    async with house() as made:
        token = made.token()
        url = "/v1/stream/a?live=sse&offset=now"
        async with asyncio.timeout(60), made.client.stream("GET", url, headers=made.headers(token)) as response:
            assert response.status_code == 200
            while not made.server.services.live:
                await asyncio.sleep(0.005)
            await ending(made, token)
            async for _ in response.aiter_lines():
                pass
        assert (await made.client.get(url, headers=made.headers(token))).status_code == 401


class Stalled:
    """A reader that takes the head of a response, and nothing of its body."""

    def __init__(self, server: Running, reader: asyncio.StreamReader) -> None:
        self._server = server
        self._reader = reader

    async def cut_off(self) -> bytes:
        """Wait until the server has closed its last connection, unasked; what there is to read afterwards."""
        while self._server.server.server_state.connections:
            await asyncio.sleep(0.005)
        found = b""
        with suppress(ConnectionResetError):
            while part := await self._reader.read(65_536):
                found += part
        return found


@asynccontextmanager
async def stalled(server: Running, path: str, headers: dict[str, str]) -> AsyncIterator[Stalled]:
    """In the block the response has begun."""
    lines = [f"{name}: {value}" for name, value in {"Host": f"127.0.0.1:{server.port}", **headers}.items()]
    async with asyncio.timeout(60):
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        small.connect(("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=small, limit=4_096)
        writer.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        try:
            yield Stalled(server, reader)
        finally:
            writer.close()


LARGE = 12
"""Messages of a megabyte: more than two sockets hold."""


async def fill(server: Running) -> None:
    for _ in range(LARGE):
        await server.services.streams.append(
            await server.services.streams.get(ALICE, "a", may=Verb.APPEND), [NewMessage(text="x" * 1_000_000)]
        )


@pytest.mark.parametrize("path", ["/v1/content/a", "/v1/messages/a?live=sse"])
@ENDINGS
async def test_who_takes_nothing_is_cut_off_with_the_credential_too(
    path: str, ending: Ending, caplog: pytest.LogCaptureFixture
) -> None:
    async with house() as made:
        await fill(made.server)
        token = made.token()
        async with stalled(made.server, path, made.headers(token)) as viewer:
            while not made.server.services.live:
                await asyncio.sleep(0.005)
            await ending(made, token)
            while made.server.services.live:
                await asyncio.sleep(0.005)
            await made.client.aclose()
            rest = await viewer.cut_off()
        assert len(rest) < LARGE * 1_000_000
        assert not rest.endswith(b"0\r\n\r\n"), "it says that it was all"
    assert "without completing" not in caplog.text


async def test_a_download_that_nobody_takes_is_given_up_and_counts_as_a_connection() -> None:
    limits = replace(LIMITS, silence_seconds_max=0.5, owner_connections_max=1)
    async with running_server(Speed.STANDALONE, limits=limits, access=Access(identify=alice)) as server:
        await server.services.streams.create(ALICE, "a", NewStream())
        await fill(server)
        async with stalled(server, "/v1/content/a", {}) as viewer:
            async with httpx2.AsyncClient(base_url=server.url) as client:
                refused = await client.get("/v1/content/a")
            assert (refused.status_code, refused.json()["facts"]["limit"]) == (429, "owner_connections_max")
            assert len(await viewer.cut_off()) < LARGE * 1_000_000
        async with httpx2.AsyncClient(base_url=server.url) as client:
            whole = await client.get("/v1/content/a")
        assert len(whole.content) == LARGE * 1_000_000


async def alice(_connection: HTTPConnection) -> Principal:
    return ALICE


@pytest.mark.parametrize("speed", list(Speed))
async def test_a_live_connection_goes_on_with_a_newer_token(speed: Speed) -> None:
    async with house(speed) as made, made.peer(made.token()) as peer:
        await peer.receive("hello")
        await peer.send(type="subscribe", id=1, stream="a")
        await peer.receive("subscribed")
        await peer.send(type="auth", id=2, token=made.token(seconds=600, jti="newer"))
        renewed = await peer.receive("authorized", "error")
        assert (renewed["type"], renewed["id"]) == ("authorized", 2)
        assert 600 <= renewed["expires_seconds"] <= 606
        made.clock.advance(65)
        await peer.send(type="append", id=3, stream="a", messages=[{"text": "still here"}])
        assert (await peer.receive("messages"))["messages"][0]["text"] == "still here"
        await made.log_out(made.token(seconds=600, jti="newer"))
        assert await peer.closed() == 4401


@pytest.mark.scenario("SEC-002")
@pytest.mark.parametrize("speed", list(Speed))
async def test_what_a_newer_token_does_not_cover_is_over(speed: Speed) -> None:
    async with house(speed) as made, made.peer(made.token()) as peer:
        tokens = made.server.services.tokens
        some = (Grant("a", frozenset({Verb.READ})), Grant("c", frozenset({Verb.APPEND})))
        narrow = (await tokens.make(ALICE, NewToken(grants=some))).secret
        for number, name in enumerate("abc"):
            await peer.send(type="create", id=number, stream=name)
            await peer.receive("result")
            await peer.send(type="append", id=10 + number, stream=name, messages=[{"text": "before"}])
            await peer.receive("acks")
            await peer.send(type="subscribe", id=20 + number, stream=name, after="now")
            await peer.receive("subscribed")
        await peer.send(type="auth", id=30, token=narrow)
        told = [await peer.receive("authorized", "error") for _ in range(3)]
        assert [(frame.get("stream"), frame.get("code")) for frame in told] == [
            *[(name, "not_found") for name in "bc"],
            (None, None),
        ]
        for number, (name, code) in enumerate({"a": "forbidden", "b": "not_found", "c": None}.items(), 40):
            await peer.send(type="append", id=number, stream=name, messages=[{"text": "after"}])
            assert (await peer.receive("acks", "error")).get("code") == code, name
        other = (await tokens.make(replace(ALICE, tenant="other"), NewToken())).secret
        await peer.send(type="auth", id=50, token=other)
        assert (await peer.receive("authorized", "error"))["code"] == "unauthorized"
        await made.server.services.streams.append_durably(
            await made.server.services.streams.get(ALICE, "a", may=Verb.APPEND), [NewMessage(text="of another")]
        )
        assert (await peer.receive("messages"))["messages"][0]["text"] == "of another", "what is covered goes on"


@pytest.mark.parametrize(
    "token",
    [
        lambda made: made.token("bob", seconds=600, jti="bobs"),
        lambda made: made.token(seconds=-60),
        lambda made: "no token at all",
        lambda made: "",
        lambda made: signer("second").token({}),
    ],
)
async def test_no_other_token_changes_whose_connection_it_is(token: Callable[[House], str]) -> None:
    async with house() as made, made.peer(made.token()) as peer:
        await peer.receive("hello")
        await peer.send(type="auth", id=2, token=token(made))
        error = await peer.receive("error", "authorized")
        assert (error["code"], error["id"]) == ("unauthorized", 2)
        await peer.send(type="subscribe", id=3, stream="a")
        await peer.receive("subscribed")
        made.clock.advance(65)
        assert await peer.closed() == 4401


@pytest.mark.scenario("SEC-002")
async def test_a_ticket_is_worth_nothing_after_logging_out_and_a_connection_by_ticket_ends_too() -> None:
    async with house() as made:
        token = made.token()

        async def ticket() -> str:
            answer = await made.client.post("/v1/tickets", headers=made.headers(token))
            assert answer.status_code == 201
            return str(answer.json()["ticket"])

        spare = await ticket()
        async with made.server.peer(subprotocols=["unbroken.v1", f"ticket.{await ticket()}"]) as peer:
            assert (await peer.receive("hello"))["expires_seconds"] > 0
            await made.log_out(token)
            assert await peer.closed() == 4401
        with pytest.raises(InvalidStatus):
            async with made.server.peer(subprotocols=["unbroken.v1", f"ticket.{spare}"]):
                pass


@pytest.mark.scenario("SEC-002")
@pytest.mark.parametrize("speed", list(Speed))
async def test_a_ticket_is_worth_nothing_once_its_credential_or_what_that_was_made_with_is_revoked_elsewhere(
    speed: Speed,
) -> None:
    async with house(speed) as made:
        tokens = made.server.services.tokens
        key = await tokens.make(ALICE, NewToken())
        child = await _key(made, made.headers(key.secret))
        credentials = [key.secret, child, await _key(made, made.headers(child))]
        credentials += [made.token(), await _key(made, made.headers(made.token()))]
        kept = [made.token(seconds=600, jti="two"), (await tokens.make(ALICE, NewToken())).secret]
        tickets = [[await _ticket(made, one) for _ in range(3)] for one in credentials + kept]
        assert [await _opened(made, spare) for spare, *_ in tickets] == [101] * 7
        await tokens.delete(ALICE, key.token.id)
        await revoke(made, credentials[3])
        assert [await _opened(made, ticket) for _, ticket, _ in tickets] == [401] * 5 + [101] * 2
        assert [await _read(made, ticket) for *_, ticket in tickets] == [401] * 5 + [200] * 2
        await made.server.until("connections", 0)


async def _ticket(made: House, token: str) -> str:
    answer = await made.client.post("/v1/tickets", headers=made.headers(token))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["ticket"])


async def _opened(made: House, ticket: str) -> int:
    """The status of a WebSocket's handshake with the ticket."""
    try:
        async with made.server.peer(subprotocols=["unbroken.v1", f"ticket.{ticket}"]) as peer:
            await peer.receive("hello")
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def _read(made: House, ticket: str) -> int:
    """The status of a stream of events with the ticket."""
    headers = {"Authorization": f"Ticket {ticket}"}
    async with made.client.stream("GET", "/v1/messages/a?live=sse", headers=headers) as response:
        return response.status_code


@pytest.mark.scenario("SEC-002", "INTEG-002")
async def test_of_many_who_show_the_same_ticket_one_gets_in() -> None:
    async with house() as made:
        answer = await made.client.post("/v1/tickets", headers=made.headers(made.token()))
        offered = ["unbroken.v1", f"ticket.{answer.json()['ticket']}"]

        async def attempt() -> bool:
            try:
                async with made.server.peer(subprotocols=offered) as peer:
                    await peer.receive("hello")
                    return True
            except InvalidStatus:
                return False

        async with asyncio.TaskGroup() as tasks:
            attempts = [tasks.create_task(attempt()) for _ in range(20)]
        assert sorted(attempt.result() for attempt in attempts) == [False] * 19 + [True]


async def test_a_ticket_opens_one_stream_of_events() -> None:
    async with house() as made:
        answer = await made.client.post("/v1/tickets", headers=made.headers(made.token()))
        headers = {"Authorization": f"Ticket {answer.json()['ticket']}"}
        url = "/v1/messages/a?live=sse"
        async with asyncio.timeout(60), made.client.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200
            await anext(response.aiter_lines())
        assert (await made.client.get(url, headers=headers)).status_code == 401


async def test_an_application_ends_a_session_of_its_own() -> None:
    sessions = {"s1": Principal("acme", "alice", credential="session:s1")}

    def identify(connection: HTTPConnection) -> Principal | None:
        return sessions.get(connection.cookies.get("session", ""))

    async with running_server(Speed.TAKEOVER, access=Access(identify=identify, embedded=True), limits=LIMITS) as server:
        async with server.peer(additional_headers={"Cookie": "session=s1"}) as peer:
            await peer.receive("hello")
            await server.services.end_credential(sessions["s1"])
            assert await peer.closed() == 4401
        for cookie in ("session=s1", "session=s2", "x=y"):
            with pytest.raises(InvalidStatus) as refused:
                async with server.peer(additional_headers={"Cookie": cookie}):
                    pass
            assert refused.value.response.status_code == 401


async def test_who_has_no_credential_of_its_own_cannot_log_out() -> None:
    headers = {"Authorization": "Bearer an-obvious-token"}
    async with (
        running_server(access=Access(token="an-obvious-token")) as server,
        httpx2.AsyncClient(headers=headers) as client,
    ):
        answer: Any = (await client.post(f"{server.url}/v1/logout")).json()
        assert (answer["status"], answer["code"]) == (400, "invalid")


@pytest.mark.scenario("SEC-002")
@pytest.mark.parametrize("whole", [False, True], ids=["logged out", "the subject is revoked"])
async def test_what_was_made_with_a_credential_ends_with_it(whole: bool) -> None:
    async with house() as made:
        tokens = made.server.services.tokens
        token, others = made.token(seconds=600), made.token(seconds=600, jti="two")
        keys = [await _key(made, made.headers(token)), await _key(made, made.headers(others))]
        keys.append(await _key(made, made.headers(keys[0])))
        keys.append((await tokens.make(ALICE, NewToken())).secret)
        ticket = (await made.client.post("/v1/tickets", headers=made.headers(keys[0]))).json()["ticket"]
        async with made.peer(keys[2]) as peer:
            await peer.receive("hello")
            made.clock.advance(1)
            await (tokens.revoke_subject(ALICE.tenant, ALICE.subject) if whole else made.log_out(token))
            assert await peer.closed() == 4401
        found = [(await made.client.get("/v1/streams", headers=made.headers(key))).status_code for key in keys]
        assert found == [401, 401 if whole else 200, 401, 200], "what the operator made stays"
        spent = await made.client.get("/v1/streams", headers={"Authorization": f"Ticket {ticket}"})
        assert spent.status_code == 401


async def _key(made: House, headers: dict[str, str]) -> str:
    return str((await made.client.post("/v1/tokens", headers=headers, json={})).json()["token"])
