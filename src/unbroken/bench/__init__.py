"""`unbroken bench`: how fast the server is, beside its yardsticks, all measured in the same run.

The command line calls `main`. It starts servers and a load client as processes of their own, prints a table and writes
JSON; no other part of the package imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from unbroken.bench.client import BenchError, LoadClient
from unbroken.bench.machine import Cores, cache_folder, describe, find_tools
from unbroken.bench.report import Comparison, Report
from unbroken.bench.scenarios import SCENARIOS, Runner, Scale
from unbroken.bench.subjects import Bench
from unbroken.server.open_files import allow_open_files

__all__ = ["ROWS", "Scale", "main", "measure"]

ROWS = tuple(sorted(row for scenario in SCENARIOS for row in scenario.rows))
"""The rows that can be asked for."""
OPEN_FILES = 65_536
SMALL = {"replay_bytes": 64 << 20, "connections": 1_000}


def main(
    *,
    rows: Collection[int] = (),
    seconds: float = 2.0,
    rounds: int = 3,
    small: bool = False,
    json_file: Path | None = None,
    baseline: Path | None = None,
) -> int:
    """Measure the rows asked for (all when none are named), print the table, write `json_file`; the exit code.

    1 when a server failed, or lost, doubled or swapped a message; a missed target or a missing yardstick is reported, not an
    error. `small` replays 64 MB instead of 1 GB and holds 1,000 idle connections instead of 5,000. `baseline` is a
    checkout of another version, for row 14. Raises `ValueError` for a row that there is not.
    """
    if unknown := sorted(set(rows) - set(ROWS)):
        raise ValueError(f"there are no rows {unknown}, only {list(ROWS)}")
    sizes = SMALL if small else {}
    report = measure(
        frozenset(rows) or frozenset(ROWS), Scale(seconds=seconds, rounds=rounds, baseline=baseline, **sizes)
    )
    report.print_to(Console(width=None if sys.stdout.isatty() else 160))
    if json_file is not None:
        report.write_json(json_file)
    return 1 if report.failures else 0


def measure(rows: frozenset[int], scale: Scale) -> Report:
    """Run every scenario that holds one of `rows`."""
    folder = cache_folder()
    allow_open_files(OPEN_FILES)  # the servers too
    tools = find_tools(folder)
    cores = Cores.of_this_machine()
    machine = describe(folder, tools)
    client = LoadClient(tools, cores, folder)
    progress = Console(stderr=True)
    bench = Bench(tools, cores, folder, tuple(client.command))
    runner = Runner(bench, client, scale, lambda text: progress.print(text, style="dim", highlight=False))
    comparisons: list[Comparison] = []
    for scenario in SCENARIOS:
        if scenario.rows & rows:
            try:
                found = list(scenario.run(runner))
            except BenchError as error:
                runner.failures.append(f"{scenario.name}: {error}")
                continue
            comparisons += [entry for entry in found if entry is not None and entry.row in rows]
    return Report(machine, tools.missing, tuple(comparisons), tuple(runner.measured), tuple(runner.failures))
