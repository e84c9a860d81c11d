"""A disk that fails at every single operation, once or for ever: nothing acknowledged is lost, nothing is damaged.

The suite visits every operation of an append and every few of the rest; with UNBROKEN_SWEEP=full every operation of all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.disk.works import WORKS, attempt_on_copy, judge_file
from unbroken.testing import DiskError, DiskFault, DiskFull, DiskHarm, FaultDisk, PlantedFault, TornWrite, sweep

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1_800 if os.environ.get("UNBROKEN_SWEEP") == "full" else 120)]

FULL = os.environ.get("UNBROKEN_SWEEP") == "full"
HARMS: dict[str, DiskHarm] = {"error": DiskError(), "full": DiskFull(), "torn": TornWrite()}
STEP = {"append": 1, "close": 3, "trim": 5, "compaction": 3, "migration": 7, "backup": 5}


@pytest.mark.scenario("TC-EDGE-006")
@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", WORKS)
async def test_wherever_the_disk_fails_nothing_acknowledged_is_lost(
    tmp_path: Path, name: str, harm: str, times: int | None, record_property: Callable[[str, object], None]
) -> None:
    template = tmp_path / "template"
    with FaultDisk(syncs=False) as disk:
        await WORKS[name].prepare(template)

        async def attempt(place: int) -> PlantedFault:
            planted: list[PlantedFault] = []
            fault = DiskFault(HARMS[harm], nth=place, times=times)
            case = await attempt_on_copy(name, template, tmp_path, disk, lambda: planted.append(disk.plant(fault)))
            await judge_file(case)
            return planted[0]

        swept = await sweep(attempt, step=1 if FULL else STEP[name])
    record_property("runs", swept.runs)
    record_property("bites", swept.bites)
    how = "once" if times else "for ever"
    sys.stdout.write(f"{name}, {harm}, {how}: {swept.runs} runs, {swept.bites} operations failed\n")
