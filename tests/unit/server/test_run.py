"""How the program sets its web server up."""

from __future__ import annotations

from dataclasses import replace

from unbroken.auth.access import Access
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server.app import build_services
from unbroken.server.engine import Engine
from unbroken.server.run import uvicorn_config
from unbroken.store.memory import MemoryStore

PROXY_IDLE_SECONDS = 60
"""How long nginx and the load balancers of the large clouds keep an idle connection to a server."""


def test_an_idle_connection_is_kept_for_longer_than_a_proxy_keeps_it() -> None:
    limits = replace(DEFAULT_LIMITS, http_idle_seconds=90.0)
    for given in (DEFAULT_LIMITS, limits):
        engine = Engine(build_services(MemoryStore(limits=given), Access(), limits=given))
        config = uvicorn_config(engine)
        assert config.timeout_keep_alive == given.http_idle_seconds
        assert config.timeout_keep_alive > PROXY_IDLE_SECONDS
