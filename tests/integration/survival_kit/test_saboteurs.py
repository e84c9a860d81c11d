"""The survival kit catches each sabotage by a rule with a name, and accuses no honest server."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.support.log_server import Sabotage
from unbroken.errors import ConfigurationError
from unbroken.testing import Rule
from unbroken.testing.survival import (
    ADAPTERS,
    Bounds,
    Capability,
    Outcome,
    Row,
    Target,
    Wanted,
    adapter_class,
    loaded,
    running,
    scenarios,
    survive,
)
from unbroken.testing.survival.process import listening

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]

SEED = 20_261
BOUNDS = Bounds(scenario_seconds=40, patience_seconds=2)
SCENARIOS = {scenario.name: scenario for scenario in scenarios()}
ROOT = Path(__file__).resolve().parents[3]


def server(sabotage: Sabotage = Sabotage.NONE) -> str:
    """How the small server is started, from wherever."""
    program = f"{ROOT}/tests/support/log_server.py"
    return f"env PYTHONPATH={ROOT} {sys.executable} {program} --port {{port}} --directory {{directory}} --sabotage {sabotage}"


@asynccontextmanager
async def target(wanted: Wanted) -> AsyncIterator[Target]:
    async with loaded(wanted) as found, running(found) as started:
        yield started


async def rows(wanted: Wanted, *names: str) -> list[Row]:
    async with target(wanted) as started:
        chosen = [SCENARIOS[name] for name in names or SCENARIOS]
        return await survive(started, chosen, seed=SEED, label="test", bounds=BOUNDS)


def told(row: Row) -> str:
    """What a failed assertion should show."""
    cells = "; ".join(f"{name} {cell.outcome} {cell.rule} {cell.evidence}" for name, cell in row.cells.items())
    return f"{row.scenario.name}: {cells}; {row.notes}"


@pytest.mark.parametrize(
    ("sabotage", "scenario", "rule"),
    [
        (Sabotage.ACK_BEFORE_COMMIT, "kill", Rule.ACKED_KEPT),
        (Sabotage.MEMORY_ONLY, "kill", Rule.ACKED_KEPT),
        (Sabotage.LOSES_THE_LAST, "kill", Rule.ACKED_KEPT),
        (Sabotage.DOUBLES_AT_RECONNECT, "reconnect", Rule.DENSE),
        (Sabotage.SKIPS_FOR_SLOW_READERS, "slow", Rule.DENSE),
        (Sabotage.REORDERS_ON_RESUME, "cursors", Rule.DENSE),
        (Sabotage.DIFFERENT_FOR_LATE_JOINERS, "late", Rule.KNOWN),
        (Sabotage.SWALLOWS_THE_END, "end", Rule.LIVE),
        (Sabotage.FORGETS_NUMBERS, "retry", Rule.ONCE),
    ],
)
async def test_each_sabotage_is_caught_by_its_rule(sabotage: Sabotage, scenario: str, rule: Rule) -> None:
    steady, row = await rows(Wanted(adapter="sse", start=server(sabotage)), "steady", scenario)
    assert row.bites > 0
    assert row.outcome is Outcome.FAIL, told(row)
    assert rule.name.lower() in row.broken, told(row)
    assert all(cell.evidence for cell in row.cells.values() if cell.outcome is Outcome.FAIL)
    assert row.history, "the record of a failure is kept"
    if sabotage not in {Sabotage.SWALLOWS_THE_END, Sabotage.DIFFERENT_FOR_LATE_JOINERS}:  # these show without any fault
        assert steady.outcome is Outcome.PASS, told(steady)


async def test_an_honest_server_passes_everything_over_sse() -> None:
    for row in await rows(Wanted(adapter="sse", start=server())):
        assert row.outcome is Outcome.PASS, told(row)
        assert row.bites > 0 or row.scenario.fault == "none"
        assert not row.notes


async def test_an_honest_server_passes_over_websocket() -> None:
    for row in await rows(Wanted(adapter="websocket", start=server()), "slow", "end", "cursors"):
        assert row.outcome is Outcome.PASS, told(row)


async def test_an_adapter_can_be_a_program_that_starts_and_kills_its_server_too() -> None:
    command = f"env PYTHONPATH={ROOT} {sys.executable} {ROOT}/tests/support/line_adapter.py"
    for row in await rows(Wanted(command=command), "reconnect", "kill"):
        assert row.outcome is Outcome.PASS, told(row)


async def test_nothing_is_left_behind() -> None:
    async with target(Wanted(adapter="sse", start=server())) as started:
        await survive(started, [SCENARIOS["steady"], SCENARIOS["kill"]], seed=1, label="gone", bounds=BOUNDS)
        folder = started.directory
        assert [file.name for file in folder.glob("*.log") if file.name != "server.log"] == []
        assert await listening("127.0.0.1", started.port)
    assert not folder.exists()
    assert not await listening("127.0.0.1", started.port)


async def test_a_fault_that_did_not_bite_proves_nothing() -> None:
    never = msgspec.structs.replace(SCENARIOS["reconnect"], every=(10_000,), messages=10)
    async with target(Wanted(adapter="sse", start=server())) as started:
        (row,) = await survive(started, [never], seed=1, label="vain", bounds=BOUNDS)
    assert row.bites == 0
    assert row.outcome is Outcome.INCONCLUSIVE, told(row)
    assert set(row.cells.values()).isdisjoint({Outcome.PASS})
    assert row.notes == ("the fault hang_up never bit",)


async def test_what_is_not_claimed_is_not_held_against_a_server() -> None:
    without = ("resume", "terminal_event")
    wanted = Wanted(adapter="sse", start=server(Sabotage.SWALLOWS_THE_END), without=without)
    steady, cut, end = await rows(wanted, "steady", "cut", "end")
    assert (cut.outcome, end.outcome) == (Outcome.NOT_CLAIMED, Outcome.NOT_CLAIMED)
    assert steady.outcome is Outcome.PASS, told(steady)
    assert steady.cells["end"].outcome is Outcome.NOT_CLAIMED
    assert cut.notes == ("the server does not claim resume",)


async def test_a_server_that_the_kit_did_not_start_is_not_killed() -> None:
    async with target(Wanted(adapter="sse", start=server())) as started:
        foreign = replace(started, launcher=None)
        (row,) = await survive(foreign, [SCENARIOS["kill"]], seed=1, label="x", bounds=BOUNDS)
    assert row.outcome is Outcome.NOT_RUN
    assert "--start" in row.notes[0]


def test_every_scenario_has_a_stable_id_of_its_own_and_names_its_source() -> None:
    assert [scenario.id for scenario in scenarios()] == [f"SURVIVE-{number:03}" for number in range(1, 12)]
    assert len(SCENARIOS) == 11
    assert all(scenario.source and scenario.title for scenario in scenarios())


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_named_adapter_is_there(name: str) -> None:
    assert adapter_class(name).capabilities == frozenset(Capability)


@pytest.mark.parametrize("name", ["nonsense", "no.such.module:Adapter", "unbroken.testing:History", "unbroken:Nothing"])
def test_an_adapter_that_is_none_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name.split(":", maxsplit=1)[0]):
        adapter_class(name)
