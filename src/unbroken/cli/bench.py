"""The verb bench: measures this server beside its yardsticks.

The measuring itself is `unbroken.bench`. Only the options are read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from unbroken.cli.exits import UsageError
from unbroken.cli.output import check_output

__all__ = ["bench"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How much is measured."""

    seconds: Annotated[float, Parameter(help="How long one sample lasts.")] = 2.0
    rounds: Annotated[int, Parameter(help="How often each sample is taken.")] = 3


DEFAULT_LENGTH: Final = Length()


def bench(
    *,
    rows: Annotated[str, Parameter(help="Rows to measure, separated by commas [all].")] = "",
    length: Length = DEFAULT_LENGTH,
    small: Annotated[
        bool, Parameter(negative="", help="Replay 64 MB, hold 1,000 connections, fill 100,000 messages only.")
    ] = False,
    json: Annotated[Path | None, Parameter(help="A file for every sample, as JSON.")] = None,
    baseline: Annotated[
        Path | None, Parameter(help="A checkout of another version, to be measured beside this one (row 14).")
    ] = None,
    queries: Annotated[
        bool, Parameter(negative="", help="Measure the store's hot queries at 10,000 to 1,000,000 messages instead.")
    ] = False,
) -> int:
    """Measure this server beside its yardsticks and print the ratios; 10 to 15 minutes for everything.

    What each row is, and what it needs, is told in docs/benchmarks.md. Exit code 1 when a server failed, or lost, doubled or
    swapped a message, and with --queries when a query reads a table in full.
    """
    from unbroken.bench import main
    from unbroken.bench.query_report import report_queries

    check_output(json, setting="json")
    if queries:
        if rows:
            raise UsageError("--rows and --queries are two different measurements")
        return report_queries(rounds=length.rounds, small=small, json_file=json)
    try:
        wanted = [int(row) for row in rows.split(",") if row.strip()]
        return main(
            rows=wanted, seconds=length.seconds, rounds=length.rounds, small=small, json_file=json, baseline=baseline
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
