"""The verb bench: measures this server beside its yardsticks.

The measuring itself is `unbroken.bench`. Only the options are read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unbroken.cli.exits import UsageError

__all__ = ["bench"]


def bench(
    *,
    rows: Annotated[str, Parameter(help="Rows to measure, separated by commas [all].")] = "",
    seconds: Annotated[float, Parameter(help="How long one sample lasts.")] = 2.0,
    rounds: Annotated[int, Parameter(help="How often each sample is taken.")] = 3,
    small: Annotated[bool, Parameter(negative="", help="Replay 64 MB and hold 1,000 connections only.")] = False,
    json: Annotated[Path | None, Parameter(help="A file for every sample, as JSON.")] = None,
) -> int:
    """Measure this server beside its yardsticks and print the ratios; 10 to 15 minutes for everything.

    What each row is, and what it needs, is told in docs/benchmarks.md. Exit code 1 when a server failed, or lost, doubled or
    swapped a message.
    """
    from unbroken.bench import main

    try:
        wanted = [int(row) for row in rows.split(",") if row.strip()]
        return main(rows=wanted, seconds=seconds, rounds=rounds, small=small, json_file=json)
    except ValueError as error:
        raise UsageError(str(error)) from None
