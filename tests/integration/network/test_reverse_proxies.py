"""nginx and HAProxy between clients and the server do what they do on a bad day, and nothing is lost over any face."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.provision_debian import find_haproxy
from tests.support.requirement import missing
from tests.support.reverse_proxies import find_nginx
from tests.support.scene import Scene
from tests.support.server import ServerProcess
from unbroken.testing import HaproxyProcess, NginxProcess, ReverseProxy

pytestmark = pytest.mark.anyio

BAD_GATEWAY = {502, 503}
GATEWAY_TIMEOUT = 504


def proxy_before(server: ServerProcess, kind: str, directory: Path) -> ReverseProxy:
    if kind == "nginx":
        nginx = find_nginx()
        if nginx is None:
            missing("nginx")
        return NginxProcess(directory, server.port, nginx)
    haproxy = find_haproxy()
    if haproxy is None:
        pytest.skip("not run: HAProxy is not to be had here (./run test looks for it)")
    proxy = HaproxyProcess(directory, server.port, str(haproxy.path))
    proxy.environment.update(haproxy.environment)
    return proxy


class BadDay(Scene):
    """A scene with a reverse proxy in it."""

    def __init__(self, server: ServerProcess, proxy: ReverseProxy) -> None:
        super().__init__(server.url, proxy.url, sse=True, messages=500)
        self.server = server
        self.reverse = proxy

    async def a_bad_day(self) -> None:
        await self.seen(60)
        before = self.connections()
        await self.reverse.reload()
        await self.again(before)
        self.faults["reload"] += 1

        await self.seen(120)
        before = self.connections()
        await self.reverse.stop()
        await self.reverse.start()
        await self.again(before)
        self.faults["restart"] += 1

        await self.seen(180)
        before = self.connections()
        await self.server.kill()
        assert await self.reverse.status() in BAD_GATEWAY
        await self.server.start()
        await self.again(before)
        self.faults["502"] += 1

        await self.seen(240)
        before = self.connections()
        self.server.freeze()
        try:
            assert await self.reverse.status() == GATEWAY_TIMEOUT
        finally:
            self.server.thaw()
        await self.again(before)
        self.faults["504"] += 1

        await self.seen(300)
        before = self.connections()
        self.may_go_on.clear()
        await self.again(before)
        self.may_go_on.set()
        self.faults["idle time-out"] += 1


@pytest.mark.scenario("TC-EDGE-004")
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_a_reverse_proxy_on_a_bad_day_loses_nothing(tmp_path: Path, kind: str) -> None:
    async with (
        ServerProcess(tmp_path) as server,
        proxy_before(server, kind, tmp_path / kind) as proxy,
    ):
        scene = BadDay(server, proxy)
        await scene.run(scene.a_bad_day)
        assert set(scene.faults) == {"reload", "restart", "502", "504", "idle time-out"}
