"""What the store is asked for a request that is refused: the same for what is there and for what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import httpx2
import pytest

from tests.integration.access.test_ownership import ALICE, ALL, OPS, SESSION_OPS, Op, ask, credential, noted, planted
from tests.support.inprocess import served
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.identity import Grant, Principal, Verb
from unbroken.messages import SessionInfo, StreamId, StreamInfo
from unbroken.runs.catalog import Catalog
from unbroken.runs.task import Tasks
from unbroken.store.memory import MemoryStore

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-002")]


class Counting(MemoryStore):
    """What was looked up, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        self.calls.append("get")
        return await super().get(principal, name)

    async def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        self.calls.append("by id")
        return await super().get_by_id(stream)

    async def get_session(self, principal: Principal, name: str) -> SessionInfo | None:
        self.calls.append("session")
        return await super().get_session(principal, name)

    async def of(self, client: httpx2.AsyncClient, op: Op, name: str, credentials: Mapping[str, str]) -> list[str]:
        """What is looked up for one request, which is refused."""
        self.calls.clear()
        answer = await ask(client, op, name, credentials)
        assert answer.status in {403, 404}, (str(op), answer)
        return list(self.calls)


async def test_the_same_is_asked_of_the_store_for_what_is_not_there_and_for_what_is_not_yours() -> None:
    """No timing says more than the words: one look-up by name or none (two where one may be made), and nothing else."""
    store = Counting()
    async with served(store=store, access=Access(token="x" * 20)) as server:
        info = await planted(server.services, "my/1", run=False)
        both = [info, replace(info, name="my/9")]
        for actor, looked in (("another user", ["get"]), ("an append key", []), ("at an older epoch", ["get"])):
            credentials = await credential(server.services, actor, both)
            may = Verb.APPEND if actor == "an append key" else None
            for op in [op for op in OPS if op.verb is not may and not (op.makes and actor == "another user")]:
                asked = [await store.of(server.client, op, name, credentials) for name in ("my/1", "my/9")]
                assert asked[0] == asked[1], (actor, str(op))
                assert asked[0] in ([looked, looked * 2] if op.makes else [looked]), (actor, str(op))


async def test_nothing_is_looked_up_for_a_key_that_speaks_of_other_names_alone() -> None:
    """A row that is found takes longer than one that is not: where none can be given, none is looked for."""
    store = Counting()
    async with served(store=store, access=Access(token="x" * 20), catalog=Catalog([Tasks([noted])])) as server:
        services = server.services
        info = await planted(services, "my/1", run=True)
        await services.streams.put_session(ALICE, "my/1")
        grants = (Grant("w/", ALL, prefix=True), Grant("v", ALL), Grant("my/2", ALL, epoch=info.epoch))
        key = await services.tokens.make(ALICE, NewToken(grants=grants))
        credentials = {"authorization": f"Bearer {key.secret}"}
        sessions = [Op("http", verb, method, path, body) for verb, method, path, body in SESSION_OPS]
        for op in (*OPS, *sessions):
            for name in ("my/1", "my/9"):
                assert await store.of(server.client, op, name, credentials) == [], (str(op), name)
