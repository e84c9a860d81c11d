"""The verb simulate: runs the real server and real clients in a simulated world, by seed, and judges what happened.

The simulation itself is `unbroken.testing.simulation`. Only the options are read here.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unbroken.cli.exits import Exit, UsageError
from unbroken.cli.output import check_output

if TYPE_CHECKING:
    from unbroken.testing.simulation.run import Outcome

__all__ = ["simulate"]


def simulate(
    *,
    seed: Annotated[int | None, Parameter(help="Run this seed alone.")] = None,
    seeds: Annotated[int, Parameter(help="How many seeds to run; 0 with --seconds: any number.")] = 100,
    first: Annotated[int, Parameter(help="The first of them.")] = 0,
    seconds: Annotated[float | None, Parameter(help="Begin no other seed after so many seconds.")] = None,
    record: Annotated[Path | None, Parameter(help="With --seed: a file for everything that happened.")] = None,
) -> int:
    """Run the server and its clients in virtual time, with faults of the network, the store, the process and the clock.

    The same seed is the same run, event for event. A seed that fails is printed with the command that runs it again and with
    the fewest of its faults that are needed. Exit code 1 when a promise was broken.
    """
    import logging

    from unbroken.testing.history_report import Verdict
    from unbroken.testing.simulation.campaign import explain, run_campaign
    from unbroken.testing.simulation.run import simulate as run

    if record is not None and seed is None:
        raise UsageError("--record wants --seed")
    if seeds < 1 and seconds is None and seed is None:
        raise UsageError("--seeds 0 wants --seconds")
    check_output(record, setting="record")
    logging.disable(logging.CRITICAL)  # the server's own complaints about the faults
    if seed is not None:
        outcome = run(seed)
        if record is not None:
            record.write_bytes(b"\n".join(outcome.lines) + b"\n")
        _print_one(outcome)
        if outcome.verdict is Verdict.FAIL:
            print(explain(outcome))
        return Exit.FAILED if outcome.verdict is Verdict.FAIL else Exit.OK
    numbers = range(first, first + seeds) if seeds else count(first)
    campaign = run_campaign(numbers, seconds_max=seconds, on_outcome=_tick)
    sys.stderr.write("\n")
    print(campaign)
    for failed in campaign.failed:
        print(explain(failed))
    return Exit.FAILED if campaign.failed else Exit.OK


def _tick(outcome: Outcome) -> None:
    """One sign for each seed, for people who wait."""
    sys.stderr.write({"pass": ".", "fail": "F"}.get(outcome.verdict.value, "-"))
    sys.stderr.flush()


def _print_one(outcome: Outcome) -> None:
    print(f"seed {outcome.seed}: {outcome.verdict}, {outcome.virtual_seconds:.1f} simulated seconds")
    print(f"record {outcome.digest}")
    for fault in outcome.plan.faults:
        print(f"fault: {fault}")
    for doubt in outcome.doubts:
        print(f"doubt: {doubt}")
    for name, report in outcome.reports.items():
        print(f"\n{name}: {report}")
