"""Requests that a proxy in front may read differently: refused before anything of them is done, and the connection ends.

Behind each comes another request, as somebody would send it who wants one of the two to take it for a part of the first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.speeds import LOCAL, Http, Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.forwarded import Proxies
from unbroken.errors import NotFoundError
from unbroken.identity import Verb

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
SECRET = "only-for-this-test"
CEILING_SECONDS = 30.0
PUT = b"PUT /v1/streams/first HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer %b\r\n" % SECRET.encode()
BEHIND = b"PUT /v1/streams/smuggled HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer %b\r\n" % SECRET.encode()
BEHIND += b"Content-Length: 2\r\n\r\n{}"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 2\r\n"
SHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
SHAKE += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: unbroken.v1\r\n"
SHAKE += b"Authorization: Bearer %b\r\n" % SECRET.encode()


def coded(*values: bytes) -> bytes:
    lines = [b"Transfer-Encoding:%b\r\n" % value for value in values]
    return PUT + b"".join(lines) + b"\r\n" + CHUNKS


def measured(*values: bytes) -> bytes:
    return PUT + b"".join(b"Content-Length:%b\r\n" % value for value in values) + b"\r\n{}"


def chunks(body: bytes) -> bytes:
    return PUT + CHUNKED + b"\r\n" + body


AMBIGUOUS = [
    # where the body ends
    *[PUT + lines + b"\r\n" + CHUNKS for lines in (CHUNKED + LENGTH, LENGTH + CHUNKED)],
    *[coded(b" " + name) for name in (b"xchunked", b"identity", b"gzip", b"chunked;q=1", b'"chunked"', b"chunked\x0b")],
    *[coded(b" " + name) for name in (b"identity, chunked", b"gzip, chunked", b",chunked", b"chunked,", b"")],
    *[coded(b" chunked", name) for name in (b" chunked", b" identity", b" gzip")],
    *[coded(name, b" chunked") for name in (b" identity", b" gzip")],
    coded(b"\r\n chunked"),
    coded(b" chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    coded(b" chunked").replace(b"Encoding:", b"Encoding :", 1),
    *[measured(length) for length in (b"+2", b"-2", b"0x2", b"2_0", b"", b"2 2", b"2, 2", b"9" * 25, b"2\x0b")],
    *[measured(b" 2", other) for other in (b" 2", b" 3")],
    *[
        chunks(size + b"\r\n{}\r\n0\r\n\r\n")
        for size in (b"+2", b"-2", b"0x2", b"2 ", b" 2", b"", b"2_", b"1" + b"0" * 16)
    ],
    *[chunks(body) for body in (CHUNKS.replace(b"\r\n", b"\n", 1), b"2;a\nb" + CHUNKS[1:], b"2;a\rb" + CHUNKS[1:])],
    *[chunks(body) for body in (b"2\r\n{}0\r\n\r\n", b"2\r\n{}XX\r\n0\r\n\r\n", b"2\r\n{}\n0\r\n\r\n")],
    *[chunks(b"2\r\n{}\r\n0\r\n%b\r\n\r\n" % line) for line in (b"Content-Length: 5", b"Transfer-Encoding: chunked")],
    *[SHAKE + lines for lines in (b"Content-Length: 5\r\n\r\n", CHUNKED + b"\r\n" + CHUNKS)],
    (SHAKE + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    # where a line ends
    *[PUT + b"X: y" + end + LENGTH + b"\r\n{}" for end in (b"\n", b"\r", b"\r\n ", b"\x00\r\n", b"\x0b\r\n")],
    *[PUT + name + b": y\r\n" + LENGTH + b"\r\n{}" for name in (b"", b"X ", b"X\t", b"X\x00", b" X", b"X\xff")],
    # whom it is for
    PUT.replace(b"Host: HOST\r\n", b"") + LENGTH + b"\r\n{}",
    *[PUT + b"Host: " + host + b"\r\n" + LENGTH + b"\r\n{}" for host in (b"HOST", b"evil.example")],
    *[
        PUT.replace(b" /", b" " + target + b"/", 1) + LENGTH + b"\r\n{}"
        for target in (b"http://evil.example", b"ftp://HOST", b"http://user@HOST", b"HOST")
    ],
    PUT.replace(b"first", b"first#/..") + LENGTH + b"\r\n{}",
    *[PUT.replace(b"HTTP/1.1", version, 1) + LENGTH + b"\r\n{}" for version in (b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2")],
    # what it is for
    *[
        PUT.replace(b"/v1/streams/first", target) + LENGTH + b"\r\n{}"
        for target in (b"/%761/streams/first", b"/v1%2Fstreams/first", b"/v1/stre%61ms/first", b"/v1/streams%2Ffirst")
    ],
    PUT.replace(b"/v1/streams/first", b"http://HOST/v1/%73treams/first") + LENGTH + b"\r\n{}",
    b"GET /livez\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
]


@asynccontextmanager
async def server(access: Access | None = None) -> AsyncIterator[Running]:
    async with (
        running_server(Speed.STANDALONE, access=access or Access(token=SECRET)) as running,
        asyncio.timeout(CEILING_SECONDS),
    ):
        yield running


async def said(running: Running, sent: bytes) -> bytes:
    """All that the server says before it closes the connection, which it has to do by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(sent.replace(b"HOST", b"127.0.0.1:%d" % running.port))
    try:
        return await reader.read()
    finally:
        writer.transport.abort()


async def exists(running: Running, name: str) -> bool:
    try:
        await running.services.streams.get(LOCAL, name, may=Verb.READ)
    except NotFoundError:
        return False
    return True


def refused(audit: Path) -> list[str]:
    """The addresses of those who were kept out."""
    entries = [json.loads(line) for line in audit.read_text(encoding="utf-8").splitlines()]
    return [entry["client"] for entry in entries if entry["event"] == "refused"]


async def test_what_two_parsers_may_read_differently_is_refused_whole_and_nothing_behind_it_is_read() -> None:
    async with server() as running:
        for sent in AMBIGUOUS:
            answer = await said(running, sent + BEHIND)
            assert answer.startswith(b"HTTP/1.1 400 "), (sent, answer)
            assert answer.count(b"HTTP/1.1 ") == answer.count(b"connection: close") == 1, (sent, answer)
        for name in ("first", "smuggled"):
            assert not await exists(running, name)


async def test_what_everybody_reads_in_the_same_way_is_taken_with_what_comes_behind_it() -> None:
    closing = BEHIND.replace(b"Content", b"Connection: close\r\nContent")
    plain = [
        *[measured(length) for length in (b"2", b" 2 ", b"\t2", b"02")],
        *[coded(name) for name in (b" chunked", b"CHUNKED", b" chunked ")],
        *[chunks(body) for body in (b"2;a=b" + CHUNKS[1:], b"0002" + CHUNKS[1:])],
        PUT.replace(b" /", b" http://HOST/", 1) + LENGTH + b"\r\n{}",
        b"\r\n" + measured(b"2"),
    ]
    async with server() as running:
        for sent in plain:
            answer = await said(running, sent + closing)
            assert answer.count(b"HTTP/1.1 20") == answer.count(b"HTTP/1.1 ") == 2, (sent, answer)
        probe = await said(running, b"GET /livez HTTP/1.0\r\n\r\n")  # as HAProxy asks, unless told otherwise
        assert probe.startswith(b"HTTP/1.1 200 ")


TAKEN: dict[Http, list[bytes]] = {
    "h11": [
        PUT + b"X: y\n" + LENGTH + b"\r\n{}",
        PUT + b"X: y\r\n z\r\n" + LENGTH + b"\r\n{}",
        PUT + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
        coded(b" chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    ],
    "httptools": [
        chunks(CHUNKS).replace(b"Authorization", b"X", 1).removesuffix(b"\r\n")
        + b"Authorization: Bearer %b\r\n\r\n" % SECRET.encode(),
        PUT.replace(b"Host: HOST\r\n", b"") + LENGTH + b"\r\n{}",
        PUT + b"Host: evil.example\r\n" + LENGTH + b"\r\n{}",
        coded(b" gzip, chunked"),
    ],
}


@pytest.mark.parametrize("http", list(TAKEN))
async def test_the_server_of_an_application_takes_what_the_page_about_hardening_says(http: Http) -> None:
    access = Access(token=SECRET, embedded=True)
    async with running_server(Speed.TAKEOVER, access=access, http=http) as running, asyncio.timeout(CEILING_SECONDS):
        for sent in TAKEN[http]:
            answer = await said(running, sent.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            assert answer.startswith(b"HTTP/1.1 20"), (sent, answer)


@pytest.mark.parametrize("field", [b"Authorization: Bearer %b" % SECRET.encode(), b"X-Forwarded-For: 192.0.2.7"])
async def test_what_stands_behind_a_body_is_no_header(field: bytes, tmp_path: Path) -> None:
    head = b"PUT /v1/streams/first HTTP/1.1\r\nHost: HOST\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n"
    async with server(Access(token=SECRET, proxies=Proxies.parse(["127.0.0.1"]))) as running:
        running.services.audit.write_to(tmp_path / "audit")
        answer = await said(running, head + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n%b\r\n\r\n" % field)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert refused(tmp_path / "audit") == ["192.0.2.1"]


async def test_a_handshake_that_is_refused_is_noted_with_the_address_behind_the_proxy(tmp_path: Path) -> None:
    head = SHAKE.replace(SECRET.encode(), b"wrong") + b"X-Forwarded-For: 192.0.2.7, 192.0.2.1\r\n\r\n"
    async with server(Access(token=SECRET, proxies=Proxies.parse(["127.0.0.1"]))) as running:
        running.services.audit.write_to(tmp_path / "audit")
        assert (await said(running, head)).startswith(b"HTTP/1.1 401 ")
    assert refused(tmp_path / "audit") == ["192.0.2.1"]


@pytest.mark.parametrize("wanted", [b"h2c", b"something/1"])
async def test_who_wants_another_protocol_is_answered_in_ours_and_nothing_behind_that_is_read(wanted: bytes) -> None:
    asked = b"Upgrade: %b\r\nConnection: Upgrade\r\n" % wanted
    async with server() as running:
        for sent in (measured(b"2"), coded(b" chunked"), measured(b"0")[:-2]):
            answer = await said(running, sent.replace(b"Authorization", asked + b"Authorization") + BEHIND)
            assert answer.count(b"HTTP/1.1 20") == answer.count(b"HTTP/1.1 ") == 1, answer
            assert answer.count(b"connection: close") == 1
        assert not await exists(running, "smuggled")
