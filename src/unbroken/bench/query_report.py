"""What the hot queries cost, as a table for people and JSON for programs.

The command line calls `report_queries`. It measures nothing itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from unbroken.bench.machine import Tools, cache_folder, describe
from unbroken.bench.queries import SIZES, SIZES_SMALL, QueryCost, compare_queries

__all__ = ["Growth", "growths", "print_queries", "report_queries"]


@dataclass(frozen=True, slots=True)
class Growth:
    """One query at every size, smallest first."""

    query: str
    costs: tuple[QueryCost, ...]

    @property
    def time(self) -> float:
        """How many times as much processor time it takes in the largest database as in the smallest."""
        return self.costs[-1].microseconds / self.costs[0].microseconds

    @property
    def steps(self) -> float:
        """How many times as much SQLite does."""
        return self.costs[-1].steps / self.costs[0].steps

    @property
    def scans(self) -> bool:
        """Whether it reads a table in full at any size."""
        return any(cost.scanned for cost in self.costs)


def report_queries(*, rounds: int, small: bool, json_file: Path | None) -> int:
    """Measure, print the table, write `json_file`; the exit code is 1 when a query reads a table in full."""
    folder = cache_folder()
    progress = Console(stderr=True)
    sizes = SIZES_SMALL if small else SIZES
    costs = asyncio.run(
        compare_queries(folder, sizes, rounds=rounds, say=lambda text: progress.print(text, style="dim"))
    )
    found = growths(costs)
    machine = describe(folder, Tools(None, None, None, None, ()))
    print_queries(found, machine, Console(width=None if sys.stdout.isatty() else 160))
    if json_file is not None:
        json_file.write_bytes(
            msgspec.json.format(msgspec.json.encode({"machine": machine, "costs": costs}), indent=2) + b"\n"
        )
    return 1 if any(growth.scans for growth in found) else 0


def growths(costs: Sequence[QueryCost]) -> list[Growth]:
    """By query, in the order in which they were measured."""
    queries = dict.fromkeys(cost.query for cost in costs)
    return [Growth(query, tuple(cost for cost in costs if cost.query == query)) for query in queries]


def print_queries(found: Sequence[Growth], machine: dict[str, str], console: Console) -> None:
    """The table, and the machine."""
    table = Table(title="unbroken bench --queries: µs of processor time for each call", title_justify="left")
    table.add_column("query")
    for cost in found[0].costs:
        table.add_column(f"{cost.messages:,} messages", justify="right")
    for heading in ("growth", "SQLite's steps", "growth"):
        table.add_column(heading, justify="right")
    table.add_column("full scan")
    for growth in found:
        table.add_row(
            growth.query,
            *(f"{cost.microseconds:,.0f}" for cost in growth.costs),
            f"{growth.time:.2f}",
            f"{growth.costs[0].steps:,.0f} → {growth.costs[-1].steps:,.0f}",
            f"{growth.steps:.2f}",
            "yes" if growth.scans else "no",
        )
    console.print(table)
    console.print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()))
