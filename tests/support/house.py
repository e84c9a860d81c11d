"""A server that takes the tokens of an identity provider, at a time that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2

from tests.support.idp import AUDIENCE, ISSUER, Idp, served, signer
from tests.support.parts import ManualClock
from tests.support.speeds import Peer, Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.jwks import KeyRing, key_source
from unbroken.auth.jwt import JwtRules
from unbroken.auth.provider import IdentityProvider
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.requests import NewStream

__all__ = ["ALICE", "LIMITS", "House", "house"]

ALGORITHMS = frozenset({"ES256"})
RULES = JwtRules(issuer=ISSUER, audiences=frozenset({AUDIENCE}), algorithms=ALGORITHMS)
LIMITS = replace(DEFAULT_LIMITS, credential_check_seconds=0.05)
ALICE = Principal("local", "alice")


class House:
    """A server that takes the tokens of a provider, at a time that the test sets."""

    def __init__(self, server: Running, clock: ManualClock) -> None:
        self.server = server
        self.clock = clock
        self.client = httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False)

    def token(self, subject: str = "alice", *, seconds: int = 60, jti: str = "one") -> str:
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": self.clock.ms // 1000 + seconds, "jti": jti}
        return signer().token(claims)

    def headers(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def peer(self, token: str) -> AsyncIterator[Peer]:
        async with self.server.peer(additional_headers=self.headers(token)) as peer:
            yield peer

    async def log_out(self, token: str) -> None:
        answer = await self.client.post("/v1/logout", headers=self.headers(token))
        assert answer.status_code == 204, answer.text


def provider(idp: Idp) -> IdentityProvider:
    return IdentityProvider(RULES, KeyRing(key_source(idp.url, LIMITS), ALGORITHMS, LIMITS))


@asynccontextmanager
async def house(speed: Speed = Speed.STANDALONE, **access: Any) -> AsyncIterator[House]:
    """Alice has the stream `a` there; `access` are further rules."""
    clock = ManualClock()
    async with (
        served(signer()) as idp,
        running_server(speed, access=Access(provider=provider(idp), **access), limits=LIMITS, clock=clock) as server,
    ):
        await server.services.streams.create(ALICE, "a", NewStream())
        made = House(server, clock)
        async with made.client:
            yield made
