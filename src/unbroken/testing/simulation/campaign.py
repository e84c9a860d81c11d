"""Many seeds one after the other, counted; and of a seed that fails, the fewest faults with which it still does.

`unbroken simulate` and the suite run campaigns. A failing seed always comes with the command that runs it again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from unbroken.testing.history_report import Verdict
from unbroken.testing.simulation.plan import FaultPlan, Plan, plan_of
from unbroken.testing.simulation.run import Outcome, simulate, simulate_plan

__all__ = ["Campaign", "explain", "fewest_faults", "replay_command", "run_campaign"]


@dataclass(slots=True)
class Campaign:
    """What a number of seeds gave."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    bitten: Counter[str] = field(default_factory=Counter)
    """How often each kind of fault bit."""
    delivered: int = 0
    virtual_seconds: float = 0.0
    seconds: float = 0.0
    failed: list[Outcome] = field(default_factory=list)

    @property
    def seeds(self) -> int:
        """How many were run."""
        return self.verdicts.total()

    def take(self, outcome: Outcome) -> None:
        self.verdicts[outcome.verdict] += 1
        self.delivered += outcome.delivered
        self.virtual_seconds += outcome.virtual_seconds
        for report in outcome.reports.values():
            self.bitten.update(report.faults)
        if outcome.verdict is Verdict.FAIL:
            self.failed.append(outcome)

    def __str__(self) -> str:
        verdicts = ", ".join(f"{self.verdicts[verdict]} {verdict}" for verdict in Verdict if self.verdicts[verdict])
        faults = ", ".join(f"{kind} x{count}" for kind, count in sorted(self.bitten.items())) or "none"
        return (
            f"{self.seeds} seeds: {verdicts}; {self.delivered} messages delivered in {self.virtual_seconds:.0f} simulated "
            f"seconds, {self.seconds:.1f} s of this machine\nfaults that bit: {faults}"
        )


def run_campaign(
    seeds: Iterable[int],
    *,
    seconds_max: float | None = None,
    failures_max: int = 3,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Campaign:
    """Run seeds until they, or the time, or the patience with failures are over."""
    campaign, began = Campaign(), time.monotonic()
    for seed in seeds:
        outcome = simulate(seed)
        campaign.take(outcome)
        campaign.seconds = time.monotonic() - began
        if on_outcome is not None:
            on_outcome(outcome)
        if len(campaign.failed) >= failures_max or (seconds_max is not None and campaign.seconds >= seconds_max):
            break
    return campaign


def fewest_faults(plan: Plan) -> Plan:
    """The plan with as few of its faults as still make it fail: each is left out in turn, and stays out where that is so."""
    kept: tuple[FaultPlan, ...] = plan.faults
    for fault in plan.faults:
        fewer = tuple(other for other in kept if other is not fault)
        if simulate_plan(plan.with_faults(fewer)).verdict is Verdict.FAIL:
            kept = fewer
    return plan.with_faults(kept)


def replay_command(seed: int) -> str:
    """What runs a seed again."""
    return f"unbroken simulate --seed {seed}"


def explain(outcome: Outcome) -> str:
    """All that is needed to look into a failure: what broke, with which faults, and how to see it again."""
    fewest = fewest_faults(plan_of(outcome.seed)) if outcome.plan == plan_of(outcome.seed) else outcome.plan
    faults = "\n".join(f"  {fault}" for fault in fewest.faults) or "  none at all"
    return "\n".join(
        [
            f"seed {outcome.seed} failed; again with: {replay_command(outcome.seed)}",
            f"the fewest faults with which it does:\n{faults}",
            *outcome.violations,
        ]
    )
