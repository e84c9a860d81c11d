"""What the benchmark found, as comparisons with their yardsticks: a table for people and JSON for programs.

Scenarios make `Comparison`s from samples; the command prints them. Nothing here measures or rounds what it stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from unbroken.bench.client import Sample
from unbroken.bench.machine import Missing

__all__ = ["Comparison", "Measured", "Report", "compare", "compare_rates", "middle"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One of our figures beside a yardstick of the same run. `met` is None where there is no target or no yardstick."""

    row: int
    measure: str
    unit: str
    ours: float
    yardstick: str
    theirs: float | None
    ratio: float | None
    target: str
    met: bool | None
    processor_ratio: float | None = None
    """How many times more processor time the yardstick took for each message: what the ratio would be on a quiet machine."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Every sample of one server in one scenario, in order."""

    scenario: str
    server: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    machine: dict[str, str]
    missing: tuple[Missing, ...]
    comparisons: tuple[Comparison, ...]
    measured: tuple[Measured, ...]
    failures: tuple[str, ...]

    def write_json(self, path: Path) -> None:
        """Everything, samples included."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(self)), indent=2) + b"\n")

    def print_to(self, console: Console) -> None:
        """The table, the machine, what was missing and what failed."""
        table = Table(title="unbroken bench", title_justify="left")
        for heading in ("row", "measure"):
            table.add_column(heading)
        table.add_column("ours", justify="right")
        table.add_column("yardstick")
        for heading in ("its figure", "ratio", "by processor", "target"):
            table.add_column(heading, justify="right")
        table.add_column("met")
        for entry in self.comparisons:
            table.add_row(
                str(entry.row),
                f"{entry.measure} ({entry.unit})",
                _figure(entry.ours),
                entry.yardstick,
                "" if entry.theirs is None else _figure(entry.theirs),
                "" if entry.ratio is None else f"{entry.ratio:.2f}",
                "" if entry.processor_ratio is None else f"{entry.processor_ratio:.2f}",
                entry.target,
                {None: "", True: "yes", False: "no"}[entry.met],
            )
        console.print(table)
        console.print(self._costs())
        console.print("machine: " + ", ".join(f"{key} {value}" for key, value in self.machine.items()))
        for missing in self.missing:
            console.print(f"not measured against {missing.name}, which is missing: {missing.cure}")
        for failure in self.failures:
            console.print(f"[red]failed:[/red] {failure}")

    def _costs(self) -> Table:
        """What each server's samples were, and what they cost: processor time says more than rates on a busy machine."""
        table = Table(title="medians of the samples", title_justify="left")
        table.add_column("scenario")
        table.add_column("server")
        for heading in ("messages/s", "p50 ms", "p99 ms", "µs of processor per message", "server busy", "client busy"):
            table.add_column(heading, justify="right")
        for entry in self.measured:
            samples = [sample for sample in entry.samples if sample.messages]
            if samples:
                table.add_row(
                    entry.scenario,
                    entry.server,
                    _figure(median(sample.rate for sample in samples)),
                    _figure(median(sample.p50_us for sample in samples) / 1000),
                    _figure(median(sample.p99_us for sample in samples) / 1000),
                    _figure(median(sample.cpu_us for sample in samples)),
                    f"{median(sample.cpu_percent for sample in samples):.0f} %",
                    f"{100 * median(sample.client_busy for sample in samples):.0f} %",
                )
        return table


def middle(samples: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return median(samples) if samples else None


def compare(
    row: int, measure: str, ours: float | None, yardstick: str, theirs: float | None, target: str
) -> Comparison | None:
    """Our figure against a yardstick's; None when we have none.

    `measure` ends with its unit in brackets. `target` is empty, or `>=` or `<=` and a number: of the ratio, or (where
    `yardstick` is `absolute`) of our figure itself.
    """
    if ours is None:
        return None
    what, _, unit = measure.removesuffix(")").rpartition(" (")
    absolute = yardstick == "absolute"
    ratio = ours / theirs if theirs else None
    judged = ours if absolute else ratio
    met = None if judged is None or not target else _holds(judged, target)
    return Comparison(row, what, unit, ours, yardstick, theirs, ratio, target, met)


def compare_rates(
    row: int, measure: str, ours: Sequence[Sample], theirs: tuple[str, Sequence[Sample]], target: str
) -> Comparison | None:
    """As `compare`, of how many messages arrive in a second; `theirs` is a yardstick's name and its samples."""
    name, yardstick = theirs
    rates = [middle([sample.rate for sample in samples]) for samples in (ours, yardstick)]
    costs = [middle([sample.cpu_us for sample in samples]) for samples in (ours, yardstick)]
    found = compare(row, measure, rates[0], name, rates[1], target)
    if found is None or not costs[0] or costs[1] is None:
        return found
    return replace(found, processor_ratio=costs[1] / costs[0])


def _holds(value: float, target: str) -> bool:
    relation, bound = target.split()
    return value >= float(bound) if relation == ">=" else value <= float(bound)


def _figure(value: float) -> str:
    if value >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
