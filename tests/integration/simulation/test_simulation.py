"""The real server and real clients in simulated worlds, by seed: no promise is broken, and every run can be had again."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unbroken.hub import LiveStream
from unbroken.testing import Verdict
from unbroken.testing.simulation.campaign import explain, fewest_faults, run_campaign
from unbroken.testing.simulation.day import simulate_day
from unbroken.testing.simulation.plan import FaultKind, plan_of
from unbroken.testing.simulation.run import simulate, simulate_plan

pytestmark = pytest.mark.timeout(1200)  # work of the processor alone, however many others want it too

SEEDS = int(os.environ.get("UNBROKEN_SIMULATION_SEEDS", "40"))
"""As many as fit into half a minute; `unbroken simulate --seeds` runs any number."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The server's complaints about the faults are not what is tested."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_seed_breaks_a_promise_and_every_kind_of_fault_has_bitten() -> None:
    campaign = run_campaign(range(SEEDS))
    print(campaign)  # noqa: T201 - shown where it fails
    assert not campaign.failed, "\n\n".join(map(explain, campaign.failed))
    assert campaign.seeds == SEEDS
    assert campaign.verdicts[Verdict.PASS] > SEEDS / 2, "too many seeds prove nothing"
    assert set(campaign.bitten) == set(FaultKind)
    plans = list(map(plan_of, range(SEEDS)))
    assert (
        min(sum(plan.fleet for plan in plans), sum(plan.reuses for plan in plans), sum(plan.forks for plan in plans))
        > SEEDS / 10
    )


def test_the_same_seed_is_the_same_run_in_every_process() -> None:
    plans = [plan_of(seed) for seed in range(200)]
    seeds = [
        3,
        8,
        12,
        *(next(plan.seed for plan in plans if plan.fleet is fleet and plan.sqlite) for fleet in (False, True)),
    ]
    script = (
        "import logging, sys; logging.disable(logging.CRITICAL)\n"
        "from unbroken.testing.simulation.run import simulate\n"
        "for seed in sys.argv[1:]: print(simulate(int(seed)).digest)"
    )

    def digests(hash_seed: int) -> list[str]:
        command = [sys.executable, "-c", script, *map(str, seeds)]
        environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout.split()

    assert digests(1) == digests(2) == [simulate(seed).digest for seed in seeds]
    assert simulate(seeds[0]).lines == simulate(seeds[0]).lines
    assert simulate(seeds[0]).lines != simulate(seeds[1]).lines


def test_leaving_out_a_fault_changes_nothing_before_it() -> None:
    plan = next(plan for plan in map(plan_of, range(100)) if len(plan.faults) == 3)
    whole, without = simulate_plan(plan), simulate_plan(plan.with_faults(plan.faults[:2]))
    last = str(plan.faults[2]).encode()
    until = next(number for number, line in enumerate(whole.lines) if last in line)
    assert until > 20
    assert whole.lines[:until] == without.lines[:until]


def test_who_succeeds_a_producer_reads_on_though_messages_are_trimmed_under_it() -> None:
    assert not simulate(840).violations


@pytest.fixture
def hole_in_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect: a viewer that is behind is served from the ring, whether or not the ring reaches back far enough."""
    monkeypatch.setattr(
        LiveStream, "after", lambda live, cursor: [one for one in live.ring if one.last > cursor] or None
    )


def first_failure(upto: int = 60) -> int:
    """The first seed that fails."""
    (failed,) = run_campaign(range(upto), failures_max=1).failed
    return failed.seed


@pytest.mark.usefixtures("hole_in_the_ring")
def test_a_planted_defect_is_found_and_told_with_its_seed_and_its_fewest_faults() -> None:
    seed = first_failure()
    outcome = simulate(seed)
    assert outcome.verdict is Verdict.FAIL
    told = explain(outcome)
    assert f"unbroken simulate --seed {seed}\n" in told
    fewest = fewest_faults(outcome.plan)
    assert len(fewest.faults) <= len(outcome.plan.faults)
    assert simulate_plan(fewest).verdict is Verdict.FAIL
    for fault in fewest.faults:
        others = tuple(other for other in fewest.faults if other is not fault)
        assert simulate_plan(fewest.with_faults(others)).verdict is not Verdict.FAIL, "this fault is not needed"


@pytest.mark.scenario("LOAD-003")
def test_a_day_of_streaming_loses_nothing() -> None:
    day = simulate_day(7)
    assert day.virtual_seconds >= 24 * 3600
    assert dict(day.faults) == {"clock": 4, "cut": 6, "kill": 2, "restart": 1}
    assert day.connections == 1 + day.faults["cut"] + day.faults["kill"] + day.faults["restart"], "heartbeats keep it"
    assert day.acknowledged > 24 * 80
    assert day.delivered == 2 * day.acknowledged
    assert day.deleted == 20
    assert day.streams_most <= 6, "what has had its time is deleted"


def test_the_command_runs_seeds_and_writes_down_what_happened(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "unbroken", "simulate", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    many = run("--seeds", "3", "--first", "1")
    assert many.returncode == 0, many.stderr
    assert "3 seeds:" in many.stdout
    record = tmp_path / "record"
    one = run("--seed", "2", "--record", str(record))
    assert one.returncode == 0, one.stderr
    outcome = simulate(2)
    assert f"record {outcome.digest}" in one.stdout
    assert record.read_bytes().splitlines() == list(outcome.lines)
    assert run("--record", str(record)).returncode == 2
    nowhere = run("--seed", "2", "--record", str(tmp_path / "no" / "record"))
    assert (nowhere.returncode, nowhere.stdout, "cannot be written" in nowhere.stderr) == (78, "", True)
