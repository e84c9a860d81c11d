"""What a history check says: a verdict for each rule, with the smallest evidence.

`history_check` makes a `Report`, tests raise it. Nothing here judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

__all__ = ["Finding", "HistoryError", "InconclusiveError", "Report", "Rule", "Verdict"]


class Rule(IntEnum):
    """The thirteen rules of a stream's history."""

    KNOWN = 1
    """What is delivered was appended before, with the same content."""
    NOT_FAILED = 2
    """What definitely failed is never delivered."""
    ONE_PLACE = 3
    """One place holds one message, for all observers and for ever; a message has one place."""
    DENSE = 4
    """For each observer the places go up by one, across all its connections."""
    CURSOR = 5
    """No observer asks for what follows a place that it has not got."""
    ACKED_KEPT = 6
    """What was acknowledged is there at the end, at the acknowledged place."""
    SEEN_KEPT = 7
    """What anybody saw is there at the end, at the same place."""
    ONCE = 8
    """Nothing is there twice, whatever was retried."""
    PRODUCER_ORDER = 9
    """A producer's messages are in the order in which it sent them."""
    REAL_TIME = 10
    """What was acknowledged before another was sent stands before it."""
    FRESH_READ = 11
    """A read that begins after an acknowledgement sees it."""
    ONE_END = 12
    """The end is told once, last, behind everything, and the same to all."""
    LIVE = 13
    """After the last fault every observer gets to the end."""


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_CLAIMED = "not claimed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one rule. On a failure: the anomaly's name, the first evidence, and how often it was found."""

    rule: Rule
    verdict: Verdict
    anomaly: str = ""
    witness: Mapping[str, str | int] = field(default_factory=dict)
    count: int = 0

    def __str__(self) -> str:
        text = f"{self.rule.value:2} {self.rule.name.lower():14} {self.verdict}"
        if not self.anomaly:
            return text
        evidence = ", ".join(f"{name}={value}" for name, value in self.witness.items())
        return f"{text}: {self.anomaly} ({evidence}){f' and {self.count - 1} more' if self.count > 1 else ''}"


class HistoryError(AssertionError):
    """A history broke a rule."""


class InconclusiveError(AssertionError):
    """A history proves nothing: no message, or a fault that did not bite."""


@dataclass(frozen=True, slots=True)
class Report:
    """The verdicts on one history."""

    findings: Mapping[Rule, Finding]
    delivered: int
    acknowledged: int
    faults: Mapping[str, int]
    lag_seconds: float | None
    doubts: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """`fail` where any rule fails, else `inconclusive` where anything is in doubt, else `pass`."""
        verdicts = {finding.verdict for finding in self.findings.values()}
        if Verdict.FAIL in verdicts:
            return Verdict.FAIL
        if self.doubts or Verdict.INCONCLUSIVE in verdicts:
            return Verdict.INCONCLUSIVE
        return Verdict.PASS

    @property
    def anomalies(self) -> list[str]:
        """The names of what was found wrong."""
        return [finding.anomaly for finding in self.findings.values() if finding.verdict is Verdict.FAIL]

    def raise_if_failed(self) -> Report:
        """Raise `HistoryError` on a failure and `InconclusiveError` where nothing was proven; else give the report."""
        match self.verdict:
            case Verdict.FAIL:
                raise HistoryError(str(self))
            case Verdict.INCONCLUSIVE:
                raise InconclusiveError(str(self))
            case _:
                return self

    def __str__(self) -> str:
        head = f"history: {self.verdict}; {self.acknowledged} acknowledged, {self.delivered} delivered"
        faults = ", ".join(f"{kind} x{effect}" for kind, effect in self.faults.items()) or "none"
        return "\n".join([head, f"faults that bit: {faults}", *self.doubts, *map(str, self.findings.values())])
