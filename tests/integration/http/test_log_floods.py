"""Whoever connects and speaks nonsense has one line written of it, and not as many as there are connections."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from tests.support.speeds import Speed, running_server
from unbroken.limits import DEFAULT_LIMITS

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
CEILING_SECONDS = 30.0
TIMES = 5


async def nonsense(port: int) -> None:
    """What is no HTTP, from one connection after the other."""
    for _ in range(TIMES):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "Invalid HTTP" in record.getMessage()]


def told(caplog: pytest.LogCaptureFixture) -> int:
    """Of how many the log tells, whether it has written them or counted them."""
    counts = [re.search(r"\((\d+) more\)$", line) for line in lines(caplog)]
    return sum(1 if count is None else int(count[1]) for count in counts)


async def test_of_nonsense_one_line_is_written_and_then_how_often_it_came(caplog: pytest.LogCaptureFixture) -> None:
    async with running_server(Speed.STANDALONE) as running, asyncio.timeout(CEILING_SECONDS):
        await nonsense(running.port)
        assert lines(caplog) == ["Invalid HTTP request received."]
    assert lines(caplog)[1:] == [f"Invalid HTTP request received. ({TIMES - 1} more)"]


async def test_how_often_it_came_is_told_while_the_server_runs(caplog: pytest.LogCaptureFixture) -> None:
    limits = replace(DEFAULT_LIMITS, audit_interval_seconds=0.0)
    async with running_server(Speed.STANDALONE, limits=limits) as running, asyncio.timeout(CEILING_SECONDS):
        await nonsense(running.port)
        while told(caplog) < TIMES:
            await asyncio.sleep(0.005)
    assert told(caplog) == TIMES
