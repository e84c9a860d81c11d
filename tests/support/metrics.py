"""Owns the reading of a running server's metrics, as a monitoring system does it.

Tests that must know what the server believes call it. It never looks into the process.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import httpx2

__all__ = ["metric", "until_metric"]

CEILING_SECONDS = 60.0


async def metric(url: str, series: str) -> float:
    """The value of one series, written as in the text format: `name` or `name{label="value"}`."""
    async with httpx2.AsyncClient(trust_env=False, timeout=CEILING_SECONDS) as client:
        text = (await client.get(f"{url}/metrics")).text
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found, f"{series} is not in\n{text}"
    return float(found[1])


async def until_metric(url: str, series: str, condition: Callable[[float], bool]) -> float:
    """Poll until the series' value meets `condition`; gives it."""
    async with asyncio.timeout(CEILING_SECONDS):
        while not condition(value := await metric(url, series)):
            await asyncio.sleep(0.05)
    return value
