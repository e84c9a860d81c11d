"""No credential that is not good gets in anywhere, and what is answered says nothing about what exists (SEC-001).

The entries are those of the routes themselves, so that a new one is tried too.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Route
from websockets.exceptions import InvalidStatus

from tests.support.house import ALICE, House, house
from tests.support.idp import AUDIENCE, ISSUER, encode, signer
from tests.support.server import ServerProcess
from tests.support.speeds import Speed
from unbroken.auth.stored import NewToken
from unbroken.server.app import build_routes
from unbroken.server.durable_streams.routes import METHODS
from unbroken.server.resource import Resource

pytestmark = pytest.mark.anyio

SHARED = "an-obvious-shared-token"
Headers = list[tuple[str, str]]
Credential = Callable[[House], Awaitable[Headers]]


def bearer(make: Callable[[House], str]) -> Credential:
    async def headers(made: House) -> Headers:
        return [("Authorization", f"Bearer {make(made)}")]

    return headers


def fixed(*values: str) -> Credential:
    async def headers(made: House) -> Headers:
        return [("Authorization", value) for value in values]

    return headers


def claims(made: House, **change: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": made.clock.ms // 1000 + 60, "jti": "x", **change}


def confused(made: House) -> str:
    """What an attacker makes of the public key, hoping that it is taken for a shared one."""
    signed = f"{encode({'alg': 'HS256', 'kid': 'first', 'typ': 'at+jwt'})}.{encode(claims(made))}"
    return f"{signed}.{encode(hmac.digest(signer().pem, signed.encode(), 'sha256'))}"


async def revoked(made: House) -> Headers:
    token = made.token(jti="gone")
    await made.server.services.tokens.revoke(replace(ALICE, credential="jwt:gone"))
    return [("Authorization", f"Bearer {token}")]


async def revoked_key(made: House) -> Headers:
    kept = await made.server.services.tokens.make(ALICE, NewToken(label="a phone"))
    await made.server.services.tokens.delete(ALICE, kept.token.id)
    return [("Authorization", f"Bearer {kept.secret}")]


async def expired_key(made: House) -> Headers:
    kept = await made.server.services.tokens.make(ALICE, NewToken(label="a guest", expires_ms=made.clock.ms + 1))
    made.clock.advance(0.001)
    return [("Authorization", f"Bearer {kept.secret}")]


async def twice(made: House) -> Headers:
    return [("Authorization", f"Bearer {made.token()}"), ("Authorization", f"Bearer {made.token()}")]


BAD: dict[str, Credential] = {
    "none": fixed(),
    "empty": fixed(""),
    "no token": fixed("Bearer"),
    "no scheme": fixed(SHARED),
    "another scheme": fixed(f"Basic {SHARED}"),
    "gibberish": fixed("Bearer a.b.c"),
    "not quite the shared token": fixed(f"Bearer {SHARED}x"),
    "no token of ours": fixed("Bearer ubk_" + "A" * 43),
    "another key": bearer(lambda made: signer("second").token(claims(made), kid="first")),
    "unknown key": bearer(lambda made: signer("second").token(claims(made))),
    "no algorithm": bearer(lambda made: f"{encode({'alg': 'none', 'typ': 'at+jwt'})}.{encode(claims(made))}."),
    "another algorithm": bearer(lambda made: signer().token(claims(made), alg="RS256")),
    "the public key as a shared one": bearer(confused),
    "another audience": bearer(lambda made: signer().token(claims(made, aud="others"))),
    "another issuer": bearer(lambda made: signer().token(claims(made, iss="https://evil.example"))),
    "another kind": bearer(lambda made: signer().token(claims(made), typ="id+jwt")),
    "expired": bearer(lambda made: signer().token(claims(made, exp=made.clock.ms // 1000 - 6))),
    "not valid yet": bearer(lambda made: signer().token(claims(made, nbf=made.clock.ms // 1000 + 6))),
    "revoked": revoked,
    "a revoked token of ours": revoked_key,
    "an expired token of ours": expired_key,
    "oversized": bearer(lambda made: signer().token(claims(made, x="y" * 9_000))),
    "a ticket that never was": fixed("Ticket " + "A" * 43),
    "two": twice,
}


def entries(made: House) -> Iterator[tuple[str, str]]:
    """Every method and path that a route answers, with `{name}` where a stream is named."""
    for route in build_routes(made.server.services):
        if not isinstance(route, Route) or not (route.path.startswith("/v1/") or route.path == "/metrics"):
            continue
        path = route.path.replace("{name:path}", "{name}")
        if isinstance(route.endpoint, Resource):
            methods = list(route.endpoint._handlers)
        else:
            methods = METHODS.split(", ") if path.startswith("/v1/stream/") else ["GET"]
        yield from ((method, path) for method in methods if method != "OPTIONS")
    yield "GET", "/v1/messages/{name}?live=sse"
    yield "GET", "/v1/messages/{name}?live=long-poll"
    yield "GET", "/v1/stream/{name}?offset=-1&live=sse"
    yield "GET", "/v1/stream/{name}?offset=-1&live=long-poll"


def seen(answer: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    return answer.status_code, answer.content, {name: value for name, value in answer.headers.items() if name != "date"}


KINDS = ("none", "another key", "expired", "revoked", "two")
"""What every entry is tried with; a few entries are tried with everything."""
SOME = (
    ("GET", "/v1/streams/{name}"),
    ("POST", "/v1/messages/{name}"),
    ("GET", "/v1/messages/{name}?live=sse"),
    ("GET", "/v1/stream/{name}?offset=-1&live=long-poll"),
    ("GET", "/metrics"),
)


async def refused_alike(made: House, credential: str, entry: tuple[str, str]) -> None:
    """The entry refuses the credential, whether there is such a stream or not, in the same words."""
    method, path = entry
    answers = []
    for name in ("a", "no-such-thing"):
        headers = [*(await BAD[credential](made)), ("Content-Type", "application/json")]
        content = None if method in {"GET", "HEAD"} else b"{}"
        answers.append(await made.client.request(method, path.format(name=name), headers=headers, content=content))
    there, missing = answers
    assert seen(there) == seen(missing), (credential, entry)
    assert there.status_code in ({400, 401} if credential == "two" else {401}), (credential, entry, there.text)
    if method != "HEAD" and there.status_code == 401:
        assert there.json()["code"] == "unauthorized"
        assert there.headers["www-authenticate"] == "Bearer"


@pytest.mark.scenario("SEC-001")
async def test_a_bad_credential_is_refused_everywhere_and_says_nothing_of_what_exists() -> None:
    async with house(token=SHARED) as made:
        everywhere = list(entries(made))
        assert len(everywhere) >= 40
        for credential in KINDS:
            for entry in everywhere:
                await refused_alike(made, credential, entry)
        for credential in BAD.keys() - set(KINDS):
            for entry in SOME:
                await refused_alike(made, credential, entry)
        stream = await made.server.services.store.get(ALICE, "a")
        assert stream is not None
        assert stream.head == 0, "and nothing was done"
        assert await made.server.services.store.get(ALICE, "no-such-thing") is None


async def test_a_good_credential_is_let_in_where_a_bad_one_is_not() -> None:
    async with house(token=SHARED) as made:
        for number, (method, path) in enumerate(entries(made)):
            if "live=" in path:
                continue
            headers = made.headers(made.token(jti=f"t{number}"))
            answer = await made.client.request(method, path.format(name="no-such-thing"), headers=headers)
            assert answer.status_code != 401, (method, path)


@pytest.mark.scenario("SEC-001")
@pytest.mark.parametrize("speed", list(Speed))
async def test_a_bad_credential_opens_no_websocket(speed: Speed) -> None:
    async with house(speed, token=SHARED) as made:
        for name, credential in BAD.items():
            if name == "oversized":
                continue  # a header line that the library does not even read
            with pytest.raises(InvalidStatus) as refused:
                async with made.server.peer(additional_headers=await credential(made)):
                    pass
            response = refused.value.response
            assert response.status_code in ({400, 401} if name == "two" else {401}), name
            assert json.loads(response.body or b"{}")["code"] in {"unauthorized", "invalid"}
        assert len(made.server.services.connections) == 0
        async with made.peer(made.token()) as peer:
            await peer.receive("hello")


@pytest.mark.scenario("SEC-001", "SEC-002", "TC-EDGE-015")
async def test_no_credential_is_ever_in_the_log(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [signer().jwk]}))
    arguments = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-keys", str(keys), "--log-level", "debug"]
    async with ServerProcess(tmp_path, arguments=arguments, environment={"UNBROKEN_TOKEN": SHARED}) as server:
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": 4_000_000_000}
        tokens = [signer().token(good), signer().token({**good, "aud": "others"}), signer("second").token(good), SHARED]
        tokens.append("ubk_" + "A" * 43)
        async with httpx2.AsyncClient(base_url=server.url) as client:
            for token in tokens:
                headers = {"Authorization": f"Bearer {token}"}
                await client.get("/v1/streams", headers=headers)
                ticket = (await client.post("/v1/tickets", headers=headers)).json().get("ticket")
                if ticket is not None:
                    tokens.append(ticket)
                await _websocket(server, headers, token)
        await server.terminate()
        assert len(tokens) == 7
        for token in tokens:
            assert token not in server.output
            assert token.rpartition(".")[2] not in server.output


async def _websocket(server: ServerProcess, headers: dict[str, str], token: str) -> None:
    """A connection with the token in its handshake, and again in a frame."""
    from websockets.asyncio.client import connect  # noqa: PLC0415 - as the client of a stranger
    from websockets.typing import Subprotocol  # noqa: PLC0415 - as above

    url = server.url.replace("http", "ws") + "/v1/ws"
    try:
        async with connect(url, subprotocols=[Subprotocol("unbroken.v1")], additional_headers=headers) as socket:
            await socket.send(json.dumps({"type": "auth", "id": 1, "token": token}))
            while json.loads(await socket.recv())["type"] not in {"authorized", "error"}:
                pass
    except InvalidStatus:
        return
