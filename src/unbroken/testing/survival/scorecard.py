"""The scorecard as values: a row for each scenario, a cell for each thing that is promised, with the evidence of failures.

The runner makes rows, `survival.reports` writes them down. There is no score and no ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from unbroken.testing.history_report import Report, Rule, Verdict
from unbroken.testing.survival.scenario import Scenario

__all__ = ["ASPECTS", "Cell", "Outcome", "Row", "Scorecard", "judged", "whole"]

ASPECTS: Final[dict[str, tuple[Rule, ...]]] = {
    "kept": (Rule.ACKED_KEPT, Rule.SEEN_KEPT),
    "once": (Rule.ONCE,),
    "unbroken": (Rule.DENSE, Rule.CURSOR),
    "order": (Rule.PRODUCER_ORDER, Rule.REAL_TIME),
    "same": (Rule.KNOWN, Rule.NOT_FAILED, Rule.ONE_PLACE),
    "end": (Rule.ONE_END,),
    "arrives": (Rule.LIVE,),
}
"""The columns, and the rules of a history that each stands for."""


class Outcome(StrEnum):
    """What a cell can say."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_CLAIMED = "not claimed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Cell:
    """One verdict; on a failure the rule that was broken, what it is called, and the smallest evidence."""

    outcome: Outcome
    rule: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario."""

    scenario: Scenario
    cells: dict[str, Cell]
    acknowledged: int = 0
    delivered: int = 0
    bites: int = 0
    """How often the fault really happened."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    history: tuple[bytes, ...] = ()
    """The record, as JSON lines, where something failed."""

    @property
    def outcome(self) -> Outcome:
        """The worst cell; a row passes only when nothing in it is in doubt."""
        found = {cell.outcome for cell in self.cells.values()}
        for worst in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN):
            if worst in found:
                return worst
        return Outcome.PASS if Outcome.PASS in found else Outcome.NOT_CLAIMED

    @property
    def broken(self) -> list[str]:
        """The names of the rules that were broken."""
        return [cell.rule for cell in self.cells.values() if cell.outcome is Outcome.FAIL]


@dataclass(slots=True)
class Scorecard:
    """All rows of one run, with what is needed to repeat it."""

    target: str
    adapter: str
    seed: int
    version: str
    rows: list[Row] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """`fail` where any row fails, else `inconclusive` where any is, else `pass` where any passes."""
        found = {row.outcome for row in self.rows}
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.NOT_CLAIMED):
            if outcome in found:
                return outcome
        return Outcome.NOT_RUN


def whole(scenario: Scenario, outcome: Outcome, note: str) -> Row:
    """A row that says the same in every cell."""
    return Row(scenario, dict.fromkeys(ASPECTS, Cell(outcome)), notes=(note,))


def judged(report: Report) -> dict[str, Cell]:
    """The cells that a report on a history gives; where the fault did not bite, nothing but a failure is proven."""
    return {name: _cell(report, rules) for name, rules in ASPECTS.items()}


def _cell(report: Report, rules: Sequence[Rule]) -> Cell:
    findings = [report.findings[rule] for rule in rules]
    for finding in findings:
        if finding.verdict is Verdict.FAIL:
            witness = ", ".join(f"{name}={value}" for name, value in finding.witness.items())
            more = f" and {finding.count - 1} more" if finding.count > 1 else ""
            return Cell(Outcome.FAIL, finding.rule.name.lower(), f"{finding.anomaly} ({witness}){more}")
    claimed = [finding for finding in findings if finding.verdict is not Verdict.NOT_CLAIMED]
    if not claimed:
        return Cell(Outcome.NOT_CLAIMED)
    if report.doubts or any(finding.verdict is Verdict.INCONCLUSIVE for finding in claimed):
        return Cell(Outcome.INCONCLUSIVE)
    return Cell(Outcome.PASS)
