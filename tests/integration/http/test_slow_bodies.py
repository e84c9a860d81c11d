"""A body that does not end, or comes too slowly, is given up; what one owner and all together have under way is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import msgspec
import pytest

from tests.support.speeds import Running, Speed, running_server
from tests.support.under_way import UnderWay
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken, credential_of
from unbroken.identity import Principal, Verb
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.requests import NewStream

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
ALICE, BOB, EVE = Principal("acme", "alice"), Principal("acme", "bob"), Principal("other", "eve")
CEILING_SECONDS = 30.0
KIB = 1024
LARGE = 40 * KIB
PATIENT = replace(
    DEFAULT_LIMITS,
    silence_seconds_max=3_600.0,
    body_uncounted_bytes=4 * KIB,
    owner_arriving_bytes_max=100 * KIB,
    tenant_arriving_bytes_max=150 * KIB,
    arriving_bytes_max=200 * KIB,
)
PATHS = ["/v1/messages/a", "/v1/stream/a"]


@asynccontextmanager
async def server(limits: Limits, speed: Speed = Speed.STANDALONE) -> AsyncIterator[Running]:
    async with running_server(speed, limits=limits, access=Access(token="only-for-this-test")) as running:
        for principal in (ALICE, BOB, EVE):
            await running.services.streams.create(principal, "a", NewStream())
        async with asyncio.timeout(CEILING_SECONDS):
            yield running


class Sender(UnderWay):
    """Sends a part of the body that it has announced."""

    async def head(self) -> bytes:
        """The head of the answer."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def problem(self) -> tuple[bytes, dict[str, object]]:
        """The answer that comes before the body is whole: its head, and its document."""
        head = await self.head()
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, msgspec.json.decode(await self._reader.readexactly(length))

    async def closed(self) -> bool:
        """Wait until the server closes, and say nothing."""
        try:
            return await self._reader.read() == b""
        except ConnectionResetError:
            return True


@asynccontextmanager
async def sender(
    running: Running, path: str = PATHS[0], *, by: Principal | None = ALICE, size: int = 1_000_000, method: str = "POST"
) -> AsyncIterator[Sender]:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    secret = "nobody's" if by is None else (await running.services.tokens.make(by, NewToken())).secret
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{running.port}", f"Authorization: Bearer {secret}"]
    lines += ["Content-Type: application/json", f"Content-Length: {size}", "", ""]
    try:
        made = Sender(reader, writer)
        await made.send("\r\n".join(lines).encode())
        yield made
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("speed", [Speed.STANDALONE, Speed.TAKEOVER])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("part", [pytest.param(b"", id="nothing"), pytest.param(b" " * LARGE, id="a part")])
async def test_a_body_that_does_not_go_on_is_given_up(path: str, part: bytes, speed: Speed) -> None:
    async with server(replace(PATIENT, silence_seconds_max=0.2), speed) as running, sender(running, path) as one:
        await one.send(part)
        head, problem = await one.problem()
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head.lower()
        assert (problem["code"], problem["retryable"]) == ("request_timeout", True)
        assert await one.closed()
        assert running.services.bodies.held_bytes == 0


async def test_a_body_that_drips_is_given_up_though_it_is_never_silent_for_long() -> None:
    limits = replace(PATIENT, silence_seconds_max=1.0, body_bytes_per_second_min=1_000_000)
    async with server(limits) as running, sender(running) as one, asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(one.problem())
        while not answer.done():
            await one.send(b" ")
            await asyncio.wait([answer], timeout=0.02)
        assert answer.result()[1]["code"] == "request_timeout"


async def held(running: Running, *least: int) -> None:
    """Wait until what is counted is one of these."""
    while running.services.bodies.held_bytes not in least:
        await asyncio.sleep(0.005)


async def overloaded(one: Sender, code: str, limit: str) -> None:
    head, problem = await one.problem()
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: " in head.lower()
    facts = problem["facts"]
    assert isinstance(facts, dict)
    assert (problem["code"], facts["limit"]) == (code, limit)


@pytest.mark.parametrize("path", PATHS)
async def test_what_an_owner_a_tenant_and_all_leave_unfinished_is_bounded_and_given_back(path: str) -> None:
    async with server(PATIENT) as running, AsyncExitStack() as stack:

        async def begin(by: Principal) -> Sender:
            one = await stack.enter_async_context(sender(running, path, by=by))
            await one.send(b" " * LARGE)
            return one

        for count in (1, 2):
            await begin(ALICE)
            await held(running, count * LARGE)
        await overloaded(await begin(ALICE), "quota_exceeded", "owner_arriving_bytes_max")
        await begin(BOB)
        await held(running, 3 * LARGE)
        await overloaded(await begin(BOB), "quota_exceeded", "tenant_arriving_bytes_max")
        await begin(EVE)
        await held(running, 4 * LARGE)
        await begin(EVE)
        await held(running, 5 * LARGE)
        await overloaded(await begin(Principal("third", "kim")), "overloaded", "arriving_bytes_max")
        async with sender(running, path, by=ALICE, size=PATIENT.body_uncounted_bytes) as small:
            await small.send(b" " * PATIENT.body_uncounted_bytes)
            assert (await small.problem())[0].startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
        await stack.aclose()
        await held(running, 0)
        await begin(ALICE)
        await held(running, LARGE)


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_counts_until_its_request_is_done_also_while_that_waits_for_a_rate(path: str) -> None:
    limits = replace(PATIENT, owner_messages_per_second_max=100, append_wait_seconds_max=60.0)
    text = "x" * (LARGE - len('{"messages":[{"text":""}]}'))
    body = b'{"messages":[{"text":"' + text.encode() + b'"}]}'
    async with server(limits) as running, AsyncExitStack() as stack:
        running.services.quotas.headroom(ALICE).take(700, 1)  # some seconds' worth

        async def whole() -> Sender:
            one = await stack.enter_async_context(sender(running, path, size=len(body)))
            await one.send(body)
            return one

        waiting = []
        for count in (1, 2):
            waiting.append(await whole())
            await held(running, count * LARGE)
        await overloaded(await whole(), "quota_exceeded", "owner_arriving_bytes_max")
        for one in waiting:
            assert (await one.head()).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 204 "))
        await held(running, 0)


@pytest.mark.parametrize("by", [None, ALICE])
async def test_a_body_behind_its_answer_ends_or_ends_the_connection(by: Principal | None) -> None:
    limits = replace(PATIENT, discard_seconds_max=0.3)
    async with server(limits) as running, sender(running, "/v1/messages/b/c", by=by, method="GET", size=10) as one:
        assert (await one.problem())[0].startswith(b"HTTP/1.1 4")
        await one.send(b"x")
        assert await one.closed()


async def test_a_body_that_ends_behind_its_answer_leaves_the_connection_to_the_next_request() -> None:
    limits = replace(PATIENT, discard_seconds_max=0.3)
    request = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with server(limits) as running, sender(running, by=None, size=10) as one:
        await one.problem()
        await one.send(b"x" * 10)
        async with sender(running, by=None, size=10) as other:
            await other.problem()
            assert await other.closed()  # the time for the rest of a body has passed
        await one.send(request)
        assert (await one.problem())[0].startswith(b"HTTP/1.1 200 ")


@pytest.mark.scenario("SEC-002")
@pytest.mark.parametrize(
    ("path", "part", "elsewhere"),
    [
        pytest.param(PATHS[0], b"", False, id="nothing"),
        pytest.param(PATHS[0], b" " * LARGE, True, id="a part, elsewhere"),
        pytest.param(PATHS[1], b" " * LARGE, False, id="a part"),
    ],
)
async def test_a_body_is_not_taken_whose_credential_ends_while_it_comes(
    path: str, part: bytes, *, elsewhere: bool
) -> None:
    async with server(PATIENT) as running, sender(running, path) as one:
        live, tokens = running.services.live, running.services.tokens
        await one.send(part)
        while not len(live) or running.services.bodies.held_bytes != len(part):
            await asyncio.sleep(0.005)
        (token,) = (await tokens.list(ALICE, limit=10, page=None)).items
        if elsewhere:
            await tokens.delete(ALICE, token.id)
        else:
            live.expel(credential_of(token.id))
        head, problem = await one.problem()
        assert (head.split()[1], problem["code"]) == (b"401", "unauthorized")
        assert (len(live), running.services.bodies.held_bytes) == (0, 0)
        stream = await running.services.streams.get(ALICE, "a", may=Verb.READ)
        assert stream.head == 0
