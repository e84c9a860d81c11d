"""Listening for connections, TLS included, with a bound on the handshake of TLS, and on what strangers have the log say.

`unbroken serve` and `unbroken mcp --http` run this instead of uvicorn's own server, which leaves a peer that is silent before
it has said anything to asyncio's minute. What comes behind the handshake is the matter of `patience`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.sslproto import SSLProtocol
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from unbroken.observe.repetitions import RepeatedWarnings
from unbroken.server.encrypted import Measured

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from unbroken.limits import Limits
    from unbroken.server.patience import BoundedHttp, Silent

__all__ = ["BoundedServer"]

LOG: Final = logging.getLogger("uvicorn.error")
"""Where uvicorn says everything but what was asked for."""


class BoundedServer(uvicorn.Server):
    """A uvicorn server that cuts off whoever has not ended its TLS handshake after `handshake_seconds_max`.

    Over TLS, an address that cannot be listened on is an `OSError`. What uvicorn would log of each connection (that it is not
    HTTP) is logged once, and how often it was so after `audit_interval_seconds`.
    """

    def __init__(self, config: uvicorn.Config, limits: Limits) -> None:
        super().__init__(config)
        self._handshake_seconds = limits.handshake_seconds_max
        self._tell_seconds = limits.audit_interval_seconds
        self._told_at = 0.0
        self._repetitions = RepeatedWarnings(limits.audit_kinds_max)

    @property
    def url(self) -> str:
        """Where it listens, as it is to be written in an address; it must have started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"{'https' if self.config.is_ssl else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._told_at = asyncio.get_running_loop().time()
        LOG.addFilter(self._repetitions)
        if not self.config.is_ssl:
            await super().startup(sockets)
            return
        # All but listening: how long a handshake may take is an argument that it does not give.
        await super().startup([])
        self.started = False
        if sockets is None:
            await self._listen(host=self.config.host, port=self.config.port)
        for listening in sockets or []:
            await self._listen(sock=listening)
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= self._tell_seconds:
            self._told_at = now
            self._repetitions.tell()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().shutdown(sockets)
        finally:
            self._repetitions.tell()
            LOG.removeFilter(self._repetitions)

    async def _listen(
        self, *, host: str | None = None, port: int | None = None, sock: socket.socket | None = None
    ) -> None:
        config = self.config
        loop = asyncio.get_running_loop()
        kind = cast("type[BoundedHttp]", config.http_protocol_class)
        layer = _counted(_layer(loop), kind.silent)
        seconds = self._handshake_seconds
        assert config.ssl is not None, "without TLS uvicorn listens itself"
        context = Measured(config.ssl)

        def accepted() -> asyncio.BaseProtocol:
            http = kind(config=config, server_state=self.server_state, app_state=self.lifespan.state)
            http.handshake = tls = layer(loop, http, context, None, server_side=True, ssl_handshake_timeout=seconds)
            return tls

        listen = partial(loop.create_server, accepted, backlog=config.backlog)
        self.servers.append(await (listen(sock=sock) if sock is not None else listen(host=host, port=port)))


def _layer(loop: asyncio.AbstractEventLoop) -> type[SSLProtocol]:
    """What such an event loop itself puts between a transport and who speaks TLS over it."""
    modules = [sys.modules[kind.__module__] for kind in type(loop).__mro__]
    return next((module.SSLProtocol for module in modules if hasattr(module, "SSLProtocol")), SSLProtocol)


def _counted(layer: type[SSLProtocol], silent: Silent) -> Callable[..., asyncio.BaseProtocol]:
    """As `layer`, but silent from its first moment on, until who has the connection after the handshake says otherwise."""

    class Counted(layer):  # type: ignore[misc,valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            silent.add(self, transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            silent.discard(self)
            super().connection_lost(exc)

    return Counted
