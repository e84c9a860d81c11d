"""What the metrics tell of runs, and of the limits that bound them."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.runs.test_supervised import CEILING_SECONDS, LIMITS, all_tasks, ended, start, until
from tests.support.inprocess import Served, served
from unbroken.limits import Limits

pytestmark = pytest.mark.anyio


async def values(server: Served) -> dict[str, float]:
    """Every sample, by its name and its labels' values."""
    text = (await server.client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        " ".join([one.name, *(one.labels[name] for name in sorted(one.labels, reverse=True))]): one.value
        for one in samples
    }


async def reaches(server: Served, name: str, value: float) -> None:
    async with asyncio.timeout(CEILING_SECONDS):
        while (await values(server)).get(name) != value:
            await asyncio.sleep(0.01)


async def test_runs_are_counted_from_their_start_to_their_end() -> None:
    async with served(limits=replace(LIMITS, supervised_runs_max=1), catalog=all_tasks()) as server:
        await start(server, "add", "good", left=1)
        await ended(server, "good")
        await start(server, "flaky", "flaky", fails=2)
        await ended(server, "flaky")
        await start(server, "broken", "bad")
        await ended(server, "bad")
        await start(server, "stuck", "stuck")
        await until(server, "text", "stuck")
        await start(server, "add", "waits", left=1)
        await start(server, "add", "given-up", left=1)
        await reaches(server, "unbroken_waiting_runs", 2)
        assert (await values(server))["unbroken_runs"] == 1
        await server.answer(202, "POST", "/v1/cancel/given-up", json={})
        await server.answer(202, "POST", "/v1/cancel/stuck", json={})
        await ended(server, "waits")
        await reaches(server, "unbroken_waiting_runs", 0)
        await reaches(server, "unbroken_runs", 0)
        found = await values(server)
        assert found["unbroken_run_ends_total task completed"] == 3
        assert found["unbroken_run_ends_total task failed"] == 1
        assert found["unbroken_run_ends_total task cancelled"] == 2, "one was executed, one only waited"
        assert found["unbroken_run_attempts_total task"] == 7
        assert found["unbroken_run_retries_total task"] == 2
        assert found["unbroken_run_queue_seconds_count"] == 5


async def test_every_limit_is_shown_and_who_reaches_one_is_counted() -> None:
    limits = replace(LIMITS, active_runs_max=1, run_spec_bytes_max=100)
    async with served(limits=limits, catalog=all_tasks()) as server:
        found = await values(server)
        shown = {field.name: found[f"unbroken_limit {field.name}"] for field in fields(Limits)}
        assert shown == {field.name: getattr(limits, field.name) for field in fields(Limits)}
        await start(server, "stuck", "a")
        await server.problem(429, "overloaded", "POST", "/v1/runs", json={"task": "stuck", "name": "b"})
        found = await values(server)
        assert found["unbroken_refusals_total active_runs_max"] == 1
        assert found["unbroken_errors_total overloaded"] == 1
