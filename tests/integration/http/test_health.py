"""The probes tell the truth about the parts that they ask, and the metrics are there to be scraped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.inprocess import served
from unbroken.errors import StoreUnavailableError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamId, StreamInfo
from unbroken.store.base import Read, WriteOp, WriteResult
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Troubled(MemoryStore):
    """A store that hangs or fails on command."""

    hangs = False
    fails = False
    unreadable = False

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.unreadable:
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


async def test_a_store_that_hangs_or_fails_makes_the_server_not_ready_in_bounded_time() -> None:
    limits = replace(DEFAULT_LIMITS, ready_seconds_max=0.05)
    store = Troubled(limits=limits)
    async with served(store=store, limits=limits) as server:
        store.hangs = True
        answer = await server.answer(503, "GET", "/readyz")
        assert [reason["code"] for reason in answer["reasons"]] == ["store_unavailable"]
        assert await server.answer(200, "GET", "/livez") == {"alive": True}
        store.hangs, store.unreadable = False, True
        answer = await server.answer(503, "GET", "/readyz")
        assert answer["reasons"] == [{"code": "store_unavailable", "message": "the store cannot be read"}]
        store.unreadable = False
        await server.answer(200, "GET", "/readyz")


async def test_a_failed_commit_is_a_reason_until_one_works_again() -> None:
    store = Troubled(limits=DEFAULT_LIMITS)
    async with served(store=store) as server:
        await server.create("a")
        store.fails = True
        append = {"json": {"messages": [{"text": "x"}]}}
        problem = await server.problem(503, "store_unavailable", "POST", "/v1/messages/a", **append)
        assert problem["retryable"] is True
        answer = await server.answer(503, "GET", "/readyz")
        assert [reason["code"] for reason in answer["reasons"]] == ["store_unavailable"]
        await server.answer(200, "GET", "/v1/streams/a")  # reading goes on
        store.fails = False
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


class Tampered(MemoryStore):
    """A store below which somebody changed a message, or the head of the chain."""

    changed: bytes | None = None
    wrong_head = False

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        found = await super().read(stream, after, messages_max=messages_max, bytes_max=bytes_max)
        if self.changed is not None:
            batches = tuple(replace(batch, body=batch.body.replace(self.changed, b"evil")) for batch in found.batches)
            found = replace(found, batches=batches)
        if self.wrong_head:
            found = replace(found, stream=replace(found.stream, hash=b"\x00" * 32))
        return found


async def test_verify_names_where_the_chain_breaks() -> None:
    store = Tampered(limits=DEFAULT_LIMITS)
    async with served(store=store) as server:
        await server.create("a")
        for text in ("one", "two!", "three"):
            await server.append("a", text)
        store.changed = b"two!"
        found = await server.answer(200, "GET", "/v1/verify/a")
        assert (found["ok"], found["bad"], found["bad_last"], found["checked"]) == (False, 2, 2, 1)
        store.changed, store.wrong_head = None, True
        found = await server.answer(200, "GET", "/v1/verify/a")
        assert (found["ok"], found["bad"], found["bad_last"], found["last"]) == (False, 3, 3, 2)
        store.wrong_head = False
        assert (await server.answer(200, "GET", "/v1/verify/a"))["ok"] is True
