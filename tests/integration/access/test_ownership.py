"""Who may do what, on every face, for each kind of principal; what one may not see is as if it were not there."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, get_args

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.integration.access.test_every_entry import entries
from tests.support.house import house
from tests.support.inprocess import Served, served
from tests.support.speeds import Peer, Running, Speed, running_server
from unbroken import task
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.identity import Grant, Principal, Verb
from unbroken.messages import NewMessage, StreamInfo
from unbroken.protocol.frames import PROTOCOL, ClientFrame
from unbroken.requests import NewStream
from unbroken.runs.catalog import Catalog
from unbroken.runs.task import Tasks
from unbroken.server.services import Services
from unbroken.store.memory import MemoryStore
from unbroken.store.tokens import StoredToken, TokenKind

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-002")]
ALICE, BOB, EVE = Principal("local", "alice"), Principal("local", "bob"), Principal("other", "alice")
ALL = frozenset(Verb)
RUN = '{"type":"task","name":"noted"}'
NOTE = "what readers alone may know"
"""In the metadata of every stream."""
PRODUCER = {"id": "p", "epoch": 1, "seq": 0}


@task
async def noted() -> str:
    return "done"


@dataclass(frozen=True)
class Op:
    """One thing that can be asked for of the stream NAME; `makes`: it makes one where there is none."""

    face: str
    verb: Verb
    method: str = ""
    path: str = ""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    makes: bool = False
    run: bool = False

    def __str__(self) -> str:
        return f"{self.face} {self.method} {self.path}"


TEXT = {"content-type": "text/plain"}
OPS = (
    Op("http", Verb.READ, "GET", "/v1/streams/NAME"),
    Op("http", Verb.READ, "HEAD", "/v1/streams/NAME"),
    Op("http", Verb.READ, "GET", "/v1/messages/NAME"),
    Op("http", Verb.READ, "HEAD", "/v1/messages/NAME"),
    Op("http", Verb.READ, "GET", "/v1/messages/NAME?after=0&live=long-poll"),
    Op("http", Verb.READ, "GET", "/v1/messages/NAME?live=sse"),
    Op("http", Verb.READ, "GET", "/v1/content/NAME"),
    Op("http", Verb.READ, "GET", "/v1/verify/NAME"),
    Op("http", Verb.READ, "GET", "/v1/runs/NAME", run=True),
    Op("http", Verb.APPEND, "PUT", "/v1/streams/NAME", {}, makes=True),
    Op("http", Verb.APPEND, "POST", "/v1/messages/NAME", {"messages": [{"text": "x"}]}),
    Op("http", Verb.APPEND, "POST", "/v1/messages/NAME", {"messages": [{"text": "x"}], "create": {}}, makes=True),
    Op("http", Verb.APPEND, "POST", "/v1/lease/NAME", {"producer": PRODUCER}),
    Op("http", Verb.APPEND, "POST", "/v1/close/NAME", {}),
    Op("http", Verb.CANCEL, "POST", "/v1/cancel/NAME", {}),
    Op("http", Verb.MANAGE, "POST", "/v1/pause/NAME", {}),
    Op("http", Verb.MANAGE, "POST", "/v1/resume/NAME", {}),
    Op("http", Verb.MANAGE, "POST", "/v1/trim/NAME", {"first": 2}),
    Op("http", Verb.MANAGE, "POST", "/v1/erasures", {"stream": "NAME"}),
    Op("http", Verb.MANAGE, "DELETE", "/v1/streams/NAME"),
    Op("http", Verb.START, "POST", "/v1/runs", {"task": "noted", "name": "NAME"}, makes=True, run=True),
    Op("http", Verb.START, "POST", "/v1/retry/NAME", {}, run=True),
    Op("http", Verb.START, "POST", "/v1/answer/NAME", {"id": "q", "response": 1}, run=True),
    Op("durable", Verb.READ, "GET", "/v1/stream/NAME"),
    Op("durable", Verb.READ, "HEAD", "/v1/stream/NAME"),
    Op("durable", Verb.READ, "GET", "/v1/stream/NAME?offset=-1&live=long-poll"),
    Op("durable", Verb.READ, "GET", "/v1/stream/NAME?offset=-1&live=sse"),
    Op("durable", Verb.APPEND, "PUT", "/v1/stream/NAME", headers=TEXT, makes=True),
    Op("durable", Verb.APPEND, "POST", "/v1/stream/NAME", "x", headers=TEXT),
    Op("durable", Verb.MANAGE, "DELETE", "/v1/stream/NAME"),
)
FRAMES: tuple[tuple[Verb, dict[str, Any], bool], ...] = (
    (Verb.READ, {"type": "subscribe", "stream": "NAME"}, False),
    (Verb.APPEND, {"type": "append", "stream": "NAME", "messages": [{"text": "x"}]}, False),
    (Verb.APPEND, {"type": "append", "stream": "NAME", "messages": [{"text": "x"}], "producer": PRODUCER}, False),
    (Verb.APPEND, {"type": "lease", "stream": "NAME", "producer": PRODUCER, "seconds": 5}, False),
    (Verb.APPEND, {"type": "create", "stream": "NAME"}, True),
    (Verb.CANCEL, {"type": "cancel", "stream": "NAME"}, False),
    (Verb.START, {"type": "start", "run": {"task": "noted", "name": "NAME"}}, True),
    (Verb.START, {"type": "retry", "stream": "NAME"}, False),
    (Verb.START, {"type": "answer", "stream": "NAME", "question": "q", "response": 1}, False),
)


def outcome(actor: str, verb: Verb) -> str:
    """What the rules say: `yes`, `forbidden`, `no` (it is as if it were not there), or `out` (not even let in)."""
    match actor:
        case "the owner" | "at its epoch":
            return "yes"
        case "another user" | "another tenant":
            return "no, but own"
        case "a read link":
            return "yes" if verb is Verb.READ else "forbidden"
        case "an append key":
            return "yes" if verb is Verb.APPEND else "no"
        case "a prefix":
            return "yes" if verb in {Verb.READ, Verb.START} else "forbidden"
        case "at an older epoch":
            return "no"
        case _:
            return "out"


ACTORS = (
    "the owner",
    "another user",
    "another tenant",
    "a read link",
    "an append key",
    "a prefix",
    "at its epoch",
    "at an older epoch",
    "expired",
    "revoked",
    "nobody",
)


async def credential(services: Services, actor: str, infos: list[StreamInfo]) -> dict[str, str]:
    """The header with which the actor comes, made for these streams of Alice's."""
    if actor == "nobody":
        return {}
    if actor == "expired":
        return await _expired(services)

    def named(verbs: frozenset[Verb], ago: int | None = None) -> tuple[Grant, ...]:
        return tuple(Grant(info.name, verbs, epoch=None if ago is None else info.epoch - ago) for info in infos)

    soon = services.clock.now_ms() + 600_000
    some = (Grant("my/", frozenset({Verb.READ, Verb.START}), prefix=True),)
    new = {
        "a read link": NewToken(kind=TokenKind.LINK, grants=named(frozenset({Verb.READ})), expires_ms=soon),
        "an append key": NewToken(grants=named(frozenset({Verb.APPEND}))),
        "a prefix": NewToken(grants=some),
        "at its epoch": NewToken(grants=named(ALL, 0)),
        "at an older epoch": NewToken(grants=named(ALL, 1)),
    }
    owner = {"another user": BOB, "another tenant": EVE}.get(actor, ALICE)
    made = await services.tokens.make(owner, new.get(actor, NewToken()))
    if actor == "revoked":
        await services.tokens.delete(ALICE, made.token.id)
    return {"authorization": f"Bearer {made.secret}"}


async def _expired(services: Services) -> dict[str, str]:
    secret, now = f"ubk_{secrets.token_urlsafe(32)}", services.clock.now_ms()
    over = StoredToken(
        id="old",
        hash=hashlib.sha256(secret.encode()).digest(),
        kind=TokenKind.KEY,
        tenant=ALICE.tenant,
        owner=ALICE.subject,
        actor="",
        grants=None,
        created_ms=now - 2,
        expires_ms=now - 1,
    )
    await services.store.put_token(over, at_most=10_000)
    return {"authorization": f"Bearer {secret}"}


async def planted(services: Services, name: str, *, run: bool) -> StreamInfo:
    """A stream of Alice's with two messages, and one of the same name in another tenant."""
    new = NewStream(
        kind="task" if run else "stream",
        metadata=json.dumps({"note": NOTE}),
        run=RUN if run else None,
        messages=(NewMessage(text="a"), NewMessage(text="b")),
    )
    await services.streams.create(EVE, name, new)
    return (await services.streams.create(ALICE, name, new)).stream


async def seen(services: Services, info: StreamInfo) -> StreamInfo | None:
    return await services.store.get_by_id(info.id)


@dataclass(frozen=True)
class Answer:
    """What came back; of an answer that goes on only its head."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def renamed(self, old: str, new: str) -> Answer:
        """As it would be if it spoke of another name."""
        return replace(self, body=self.body.replace(old.encode(), new.encode()))


async def ask(client: httpx2.AsyncClient, op: Op, name: str, credentials: Mapping[str, str]) -> Answer:
    body = json.dumps(op.body).replace("NAME", name) if isinstance(op.body, dict) else op.body
    headers = {"content-type": "application/json", **op.headers, **credentials}
    async with client.stream(op.method, op.path.replace("NAME", name), content=body, headers=headers) as response:
        kept = tuple((key, value) for key, value in response.headers.multi_items() if key != "date")
        content = await response.aread() if response.status_code >= 400 else b""
        return Answer(response.status_code, kept, content)


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["code"]) if answer.body else ""


@asynccontextmanager
async def guarded() -> AsyncIterator[Served]:
    access = Access(token="the-operators-own-in-this-test")
    async with served(store=MemoryStore(), access=access, catalog=Catalog([Tasks([noted])])) as server:
        yield server


NUMBERS = count(1000)


OTHERS = {
    *[("GET", f"/v1/{listing}") for listing in ("streams", "sessions", "runnables", "tokens")],
    *[("POST", f"/v1/{own}") for own in ("tokens", "tickets", "logout")],
    *[("DELETE", "/v1/tokens/{name}"), ("GET", "/v1/openapi.json"), ("GET", "/metrics")],
}
"""Entries that speak of no stream and no session that is named, or of all of them: tried elsewhere."""


async def test_whatever_speaks_of_a_stream_or_a_session_is_among_what_is_tried() -> None:
    async with house(token="the-operators-own-in-this-test") as made:
        found = {(method, path.partition("?")[0]) for method, path in entries(made)}
    tried = {(op.method, op.path.partition("?")[0]) for op in OPS} | {op[1:3] for op in SESSION_OPS}
    missing = found - {(method, path.replace("NAME", "{name}")) for method, path in tried}
    assert {
        (method, path) for method, path in missing if method != "HEAD"
    } == OTHERS  # each HEAD is the GET of its path
    known = {frame["type"] for _, frame, _ in FRAMES}
    sent = {kind.__struct_config__.tag for kind in get_args(ClientFrame)}
    assert sent - known == {"unsubscribe", "pause", "resume", "auth", "heartbeat"}, "which speak of a connection's own"


@pytest.mark.parametrize("actor", ACTORS)
async def test_every_verb_over_http_and_durable_streams(actor: str) -> None:
    async with guarded() as server:
        services = server.services
        for op in OPS:
            name = f"my/{next(NUMBERS)}"
            info = await planted(services, name, run=op.run)
            credentials = await credential(services, actor, [info])
            before = await seen(services, info)
            answer = await ask(server.client, op, name, credentials)
            await judge(server, op, (actor, name), (before, await seen(services, info)), answer, credentials)
        exposed = services.metrics.expose()
        assert b"unbroken_errors_total" in exposed
        assert not [name for name in (b"my/", b"alice", b"bob", b"noted") if name in exposed]


async def judge(
    server: Served,
    op: Op,
    who: tuple[str, str],
    states: tuple[StreamInfo | None, StreamInfo | None],
    answer: Answer,
    credentials: Mapping[str, str],
) -> None:
    """The answer is what the rules say, and nothing of Alice's was changed by who may not."""
    (actor, name), (before, after) = who, states
    expected = outcome(actor, op.verb)
    told = f"{actor}: {op} of {name}: {answer}"
    missing = f"no stream {name!r}".encode()
    if expected == "yes" or (actor == "another tenant"):
        assert answer.status not in {401, 403, 405}, told
        assert missing not in answer.body, told
        assert answer.status != 404 or op.method != "HEAD", told
    elif expected == "out":
        assert (answer.status, code_of(answer) or "unauthorized") == (401, "unauthorized"), told
        assert name.encode() not in answer.body, told
    elif expected == "forbidden":
        assert (answer.status, code_of(answer) or "forbidden") == (403, "forbidden"), told
    elif op.makes and expected == "no, but own":
        assert answer.status in {200, 201}, told
    else:
        assert answer.status == 404, told
        assert op.method == "HEAD" or missing in answer.body, told
        unknown = name.replace("my/1", "my/9")
        assert await server.services.store.get(ALICE, unknown) is None
        assert (await ask(server.client, op, unknown, credentials)).renamed(unknown, name) == answer, told
    if expected != "yes":
        assert after == before, told


@pytest.mark.parametrize("speed", list(Speed))
async def test_every_frame_of_a_websocket(speed: Speed) -> None:
    access = Access(token="the-operators-own-in-this-test")
    async with running_server(speed, store=MemoryStore(), access=access, catalog=Catalog([Tasks([noted])])) as server:
        for actor in ACTORS[:8]:
            await frames_of(server, actor)


async def frames_of(server: Running, actor: str) -> None:
    services = server.services
    names = [f"my/{next(NUMBERS)}" for _ in FRAMES]
    runs = [frame["type"] in {"start", "retry", "answer"} for _, frame, _ in FRAMES]
    infos = [await planted(services, name, run=run) for name, run in zip(names, runs, strict=True)]
    credentials = await credential(services, actor, infos)
    before = [await seen(services, info) for info in infos]
    async with connect(
        f"ws://127.0.0.1:{server.port}/v1/ws", subprotocols=[Subprotocol(PROTOCOL)], additional_headers=credentials
    ) as socket:
        peer = Peer(socket)
        await peer.receive("hello")
        for number, (info, (verb, frame, makes)) in enumerate(zip(infos, FRAMES, strict=True), 1):
            answer = await framed(peer, frame, info.name, number)
            expected, told = outcome(actor, verb), f"{actor}: {frame} of {info.name}: {answer}"
            missing = f"no stream {info.name!r}"
            if expected == "yes" or actor == "another tenant":
                assert answer.get("code") not in {"unauthorized", "forbidden"}, told
                assert answer.get("message") != missing, told
            elif expected == "forbidden":
                assert answer["code"] == "forbidden", told
            elif makes and expected == "no, but own":
                assert answer["type"] == "result", told
            else:
                assert (answer["code"], answer["message"]) == ("not_found", missing), told
                unknown = info.name.replace("my/1", "my/9")
                other = await framed(peer, frame, unknown, number)
                assert json.dumps(other).replace(unknown, info.name) == json.dumps(answer), told
    for verb_of, info, old in zip(FRAMES, infos, before, strict=True):
        if outcome(actor, verb_of[0]) != "yes":
            assert await seen(services, info) == old, (actor, verb_of)


async def framed(peer: Peer, frame: Mapping[str, Any], name: str, number: int) -> Any:
    """The answer to one frame."""
    await peer.send(**json.loads(json.dumps(frame).replace("NAME", name)), id=number)
    while True:
        answer = await peer.receive("result", "error", "ack", "acks", "subscribed")
        if answer["type"] == "acks" or answer.get("id") == number:
            return answer


async def test_who_may_start_nothing_is_not_told_what_there_is_to_run() -> None:
    async with guarded() as server:
        info = await planted(server.services, "my/1", run=True)
        for actor, status, code in (("a read link", 403, "forbidden"), ("an append key", 404, "not_found")):
            headers = await credential(server.services, actor, [info])
            told = [
                await server.problem(
                    status, code, "POST", "/v1/runs", json={"task": name, "name": "my/1"}, headers=headers
                )
                for name in ("noted", "missing")
            ]
            assert told[0] == told[1]


SESSION_OPS = (
    (Verb.READ, "GET", "/v1/sessions/NAME", None),
    (Verb.READ, "GET", "/v1/session-streams/NAME", None),
    (Verb.READ, "GET", "/v1/session-messages/NAME", None),
    (Verb.MANAGE, "DELETE", "/v1/sessions/NAME", None),
    (Verb.MANAGE, "PUT", "/v1/sessions/NAME", {"state": "paused"}),
)


async def test_a_session_is_its_owners_and_spoken_of_by_the_beginnings_of_names_alone() -> None:
    async with guarded() as server:
        services, name = server.services, "my/session"
        for owner in (ALICE, EVE):
            await services.streams.put_session(owner, name, metadata=json.dumps({"of": owner.tenant}))
        info = await planted(services, name, run=False)
        before = await services.store.get_session(ALICE, name)
        for actor in ACTORS[1:]:
            credentials = await credential(services, actor, [info])
            for verb, method, path, body in SESSION_OPS:
                told = (actor, method, path)
                op = Op("http", verb, method, path, body if body is None else dict(body))
                answer = await ask(server.client, op, name, credentials)
                unknown = (await ask(server.client, op, "my/another", credentials)).renamed("my/another", name)
                assert b'"local"' not in answer.body or actor == "a prefix", told
                if actor in {"expired", "revoked", "nobody"}:
                    assert answer.status == 401, told
                elif actor == "another tenant" or (actor == "another user" and method == "PUT"):
                    assert answer.status < 300, told
                elif actor == "a prefix":
                    assert answer.status == (200 if verb is Verb.READ else 403), told
                elif method == "PUT":  # would make one, and may not: the same words whether or not there is one
                    assert (answer.status, answer) == (403, unknown), told
                else:
                    assert (answer.status, answer) == (404, unknown), told
        assert await services.store.get_session(ALICE, name) == before


async def test_listings_hold_what_may_be_read_and_nothing_else() -> None:
    async with guarded() as server:
        services = server.services
        infos = [await planted(services, f"my/{next(NUMBERS)}", run=number % 2 == 0) for number in range(4)]
        hidden = await planted(services, "their/own", run=False)
        await services.streams.put_session(ALICE, "my/session")
        await services.streams.put_session(ALICE, "their/session")
        mine, every = [info.name for info in infos[::-1]], [hidden.name, *[info.name for info in infos[::-1]]]
        expected = {
            "the owner": every,
            "another user": [],
            "a read link": mine,
            "an append key": [],
            "a prefix": mine,
            "at its epoch": mine,
            "at an older epoch": [],
        }
        for actor, names in expected.items():
            credentials = await credential(services, actor, infos)
            found: list[str] = []
            page = None
            while True:
                params = {"limit": "2"} | ({} if page is None else {"page": page})
                answer = await server.answer(200, "GET", "/v1/streams", params=params, headers=credentials)
                found += [view["stream"] for view in answer["streams"]]
                page = answer["next"]
                if page is None:
                    break
            assert found == names, actor
            sessions = await server.answer(200, "GET", "/v1/sessions", headers=credentials)
            shown = {"the owner": ["their/session", "my/session"], "a prefix": ["my/session"]}
            assert [view["session"] for view in sessions["sessions"]] == shown.get(actor, []), actor
            sources = await server.answer(200, "GET", "/v1/runnables", headers=credentials)
            may_start = actor in {"the owner", "another user", "a prefix", "at its epoch", "at an older epoch"}
            assert bool(sources["sources"]) is may_start, actor


@pytest.mark.parametrize("speed", list(Speed))
async def test_a_connection_that_may_append_at_one_epoch_never_reaches_a_later_stream(speed: Speed) -> None:
    access = Access(token="the-operators-own-in-this-test")
    async with running_server(speed, store=MemoryStore(), access=access) as server:
        services = server.services
        for actor, reached in (("at its epoch", 0), ("an append key", 2)):
            info = await planted(services, f"my/{next(NUMBERS)}", run=False)
            credentials = await credential(services, actor, [info])
            async with connect(
                f"ws://127.0.0.1:{server.port}/v1/ws",
                subprotocols=[Subprotocol(PROTOCOL)],
                additional_headers=credentials,
            ) as socket:
                peer = Peer(socket)
                await peer.receive("hello")
                append = {"type": "append", "stream": "NAME", "messages": [{"text": "x"}]}
                assert (await framed(peer, append, info.name, 1))["type"] == "acks"
                await services.streams.delete(info)
                fresh = (await services.streams.create(ALICE, info.name, NewStream())).stream
                codes = [(await framed(peer, append, info.name, number)).get("code") for number in (2, 3)]
                assert codes == (["not_found"] * 2 if reached == 0 else [None, None])
                later = await seen(services, fresh)
                assert later is not None
                assert later.head == reached
