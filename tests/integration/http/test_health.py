"""The probes tell the truth about the parts that they ask, and the metrics are there to be scraped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.inprocess import served
from unbroken.errors import StoreUnavailableError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Principal, StreamInfo
from unbroken.store.base import WriteOp, WriteResult
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Troubled(MemoryStore):
    """A store that hangs or fails on command."""

    hangs = False
    fails = False

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise StoreUnavailableError("the disk is away")
        return await super().get(principal, name)

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        if self.fails:
            raise StoreUnavailableError("the disk is away")
        return await super().write(ops)


async def test_a_working_server_is_alive_and_ready() -> None:
    async with served() as server:
        assert await server.answer(200, "GET", "/livez") == {"alive": True}
        assert await server.answer(200, "GET", "/readyz") == {"ready": True, "reasons": []}
        assert (await server.client.head("/readyz")).content == b""


async def test_a_store_that_does_not_answer_makes_the_server_not_ready_in_bounded_time() -> None:
    limits = replace(DEFAULT_LIMITS, ready_seconds_max=0.05)
    store = Troubled(limits=limits)
    async with served(store=store, limits=limits) as server:
        store.hangs = True
        answer = await server.answer(503, "GET", "/readyz")
        assert [reason["code"] for reason in answer["reasons"]] == ["store_unavailable"]
        assert await server.answer(200, "GET", "/livez") == {"alive": True}
        store.hangs = False
        await server.answer(200, "GET", "/readyz")


async def test_a_store_that_fails_is_a_reason_and_its_recovery_is_seen() -> None:
    store = Troubled(limits=DEFAULT_LIMITS)
    async with served(store=store) as server:
        await server.create("a")
        store.fails = True
        problem = await server.client.post("/v1/messages/a", json={"messages": [{"text": "x"}]})
        assert (problem.status_code, problem.json()["code"]) == (503, "store_unavailable")
        assert problem.json()["retryable"] is True
        store.fails = False
        answer = await server.answer(503, "GET", "/readyz")
        assert {reason["code"] for reason in answer["reasons"]} == {"store_unavailable"}
        await server.append("a", "x")
        await server.answer(200, "GET", "/readyz")


async def test_a_draining_server_is_not_ready() -> None:
    async with served() as server:
        server.services.draining = True
        answer = await server.answer(503, "GET", "/readyz")
        assert [reason["code"] for reason in answer["reasons"]] == ["draining"]


async def test_the_metrics_count_what_happened() -> None:
    async with served() as server:
        await server.create("a")
        await server.append("a", "one", "two", close={"state": "completed"})
        async with server.events("/v1/messages/a") as viewer:
            await viewer.rest()
        await server.client.get("/v1/streams/none")
        response = await server.client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        lines = response.text.splitlines()
        for line in (
            "unbroken_appended_messages_total 2.0",
            "unbroken_delivered_messages_total 2.0",
            'unbroken_errors_total{code="not_found"} 1.0',
            'unbroken_connections{face="sse"} 0.0',
            "unbroken_subscriptions 0.0",
            "unbroken_pending_bytes 0.0",
        ):
            assert line in lines, line
