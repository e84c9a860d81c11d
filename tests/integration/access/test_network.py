"""A server that others can reach speaks TLS or stands behind a proxy, and everything works there as on loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.certificates import make_certificate, trusting
from tests.support.commands import Commands
from tests.support.server import ServerProcess
from tests.support.speeds import LOCAL, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.forwarded import Proxies
from unbroken.cli.connection import Connection
from unbroken.client import Client
from unbroken.errors import ConfigurationError
from unbroken.requests import NewStream

pytestmark = pytest.mark.anyio

TOKEN = "an-obvious-token-of-a-test"


class SecureServer(ServerProcess):
    """A server with a certificate."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


async def test_a_server_with_a_certificate_carries_everything_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    context = trusting(certificate)
    arguments = ["--tls-cert", str(certificate)]
    async with asyncio.timeout(60), SecureServer(tmp_path, arguments=arguments) as server:
        assert f"unbroken listening on {server.url}" in server.output
        async with Client(server.url, ssl=context) as client, httpx2.AsyncClient(verify=context) as http:
            await client.create("a")
            await client.append("a", ["x" * 200_000, "two"])
            url = f"{server.url}/v1/messages/a"
            async with http.stream("GET", url, params={"live": "sse"}, timeout=60) as response:
                lines = response.aiter_lines()
                seen = await _events(lines, 2)
                await client.append("a", ["three"])
                seen += await _events(lines, 1)
            assert [event["seq"] for event in seen] == [1, 2, 3]
            followed = [one.message.text async for one in _three(client)]
            assert followed == ["x" * 200_000, "two", "three"]
        listed = await Commands(tmp_path / "home", server.url)("ls", "--json", "--ca-file", str(certificate))
        assert [one["stream"] for one in listed.objects] == ["a"], listed.err
        with pytest.raises(httpx2.TransportError):
            async with httpx2.AsyncClient(verify=True) as stranger:
                await stranger.get(server.url)


async def _three(client: Client) -> Any:
    async with client.follow("a") as follow:
        count = 0
        async for one in follow:
            yield one
            count += 1
            if count == 3:
                return


async def _events(lines: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        line = await anext(lines)
        if line.startswith("data:") and '"seq"' in line:
            found.append(json.loads(line[5:]))
    return found


@pytest.mark.parametrize("speed", list(Speed))
async def test_every_way_of_carrying_a_websocket_works_over_tls(tmp_path: Path, speed: Speed) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    async with running_server(speed, certificate=certificate) as server:
        await server.services.streams.create(LOCAL, "a", NewStream())
        origin = f"https://127.0.0.1:{server.port}"
        async with server.peer(ssl=trusting(certificate), origin=origin) as peer:
            await peer.receive("hello")
            await peer.send(type="subscribe", id=1, stream="a")
            await peer.receive("subscribed")
            await peer.send(type="append", id=2, stream="a", messages=[{"text": "x" * 300_000}])
            frame = await peer.receive("messages")
            assert len(frame["messages"][0]["text"]) == 300_000
        for wrong in (f"http://127.0.0.1:{server.port}", "null"):
            with pytest.raises(InvalidStatus) as refused:
                async with server.peer(ssl=trusting(certificate), origin=wrong):
                    pass
            assert refused.value.response.status_code == 403


@pytest.mark.parametrize("speed", list(Speed))
@pytest.mark.parametrize(("network", "let_in"), [("127.0.0.1", True), ("10.0.0.0/8", False)])
async def test_what_a_proxy_says_about_the_scheme_counts_and_what_others_say_does_not(
    speed: Speed, network: str, let_in: bool
) -> None:
    access = Access(token=TOKEN, proxies=Proxies.parse([network]), allow_hosts=frozenset({"app.example"}), exposed=True)
    headers = {"Host": "app.example", "X-Forwarded-Proto": "https", "Authorization": f"Bearer {TOKEN}"}
    origin = "https://app.example"
    async with running_server(speed, access=access) as server, AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False))
        answer = await client.get(f"{server.url}/v1/streams", headers={**headers, "Origin": origin})
        assert answer.status_code == (200 if let_in else 403)
        if let_in:
            peer = await stack.enter_async_context(_as_app(server, headers, origin))
            await peer.receive("hello")
        else:
            with pytest.raises(InvalidStatus) as refused:
                await stack.enter_async_context(_as_app(server, headers, origin))
            assert refused.value.response.status_code == 403


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize("speed", list(Speed))
@pytest.mark.parametrize(("network", "status"), [("127.0.0.0/8", 200), ("10.0.0.0/8", 403)])
async def test_over_an_open_network_only_proxies_come_in_on_any_face(
    speed: Speed, network: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(token=TOKEN, proxies=Proxies.parse([network]), allow_hosts=frozenset({"app.example"}), exposed=True)
    headers = {"Host": "app.example", "Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "10.0.0.1"}
    async with running_server(speed, access=access) as server, AsyncExitStack() as stack:
        await server.services.streams.create(LOCAL, "a", NewStream())
        client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, headers=headers))
        monkeypatch.setattr(IPv4Address, "is_loopback", False)  # as if we were another machine
        for path in ("", "v1/streams", "v1/messages/a?live=sse", "v1/stream/a", "v1/tokens", "metrics"):
            async with client.stream("GET", f"{server.url}/{path}") as answer:
                assert answer.status_code == status, path
        if status == 200:
            peer = await stack.enter_async_context(_as_app(server, headers, "http://app.example"))
            await peer.receive("hello")
        else:
            with pytest.raises(InvalidStatus) as refused:
                await stack.enter_async_context(_as_app(server, headers, "http://app.example"))
            assert refused.value.response.status_code == 403


def _as_app(server: Any, headers: dict[str, str], origin: str) -> Any:
    """A WebSocket as a proxy hands it on."""
    given = {name: value for name, value in headers.items() if name != "Host"}
    return server.peer(additional_headers=given, origin=origin, named="app.example")


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    make_certificate(tmp_path / "locked.pem", passphrase=b"x")
    command = [
        sys.executable,
        "-m",
        "unbroken",
        "serve",
        "--port",
        "0",
        "--store",
        "memory:",
        "--tls-cert",
        "locked.pem",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode != 0
    assert "the certificate or its key cannot be used" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_file_of_certificates_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    for name in ("none.pem", "empty.pem"):
        (tmp_path / "empty.pem").write_text("")
        with pytest.raises(ConfigurationError, match="certificates cannot be read"):
            _ = Connection(ca_file=tmp_path / name).ssl
