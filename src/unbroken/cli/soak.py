"""The verb soak: a real server, killed and cut off for as long as one likes, with its verdict at the end.

The soak itself is `unbroken.bench.soak`. Only the options are read here.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unbroken.cli.connection import run_async
from unbroken.cli.exits import Exit, UsageError

__all__ = ["soak"]


def soak(
    *,
    seconds: Annotated[float, Parameter(help="For how long; the round that is under way then is finished.")] = 60.0,
    streams: Annotated[int, Parameter(help="How many streams at a time.")] = 4,
    seed: Annotated[int | None, Parameter(help="Where chance comes from [another one each time].")] = None,
    directory: Annotated[Path | None, Parameter(help="Where the database is [a temporary directory].")] = None,
) -> int:
    """Run a server on a new database, producers and viewers, `kill -9` and cuts at random moments, and judge every stream.

    It ends by itself. Exit code 1 when something was lost, doubled, swapped or left without an end, or when nothing was
    killed and cut; then it proves nothing.
    """
    from unbroken.bench.soak import soak as run

    if seconds <= 0 or streams < 1:
        raise UsageError("--seconds and --streams are more than 0")
    chance = secrets.randbelow(10**9) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="unbroken-soak-", ignore_cleanup_errors=True) as temporary:
        where = Path(temporary) if directory is None else directory
        report = run_async(run(where, seconds, seed=chance, streams=streams, say=_say))
    print(report)
    for failure in report.failures:
        print(failure)
    return Exit.OK if report.passed else Exit.FAILED


def _say(text: str) -> None:
    """Progress, for people who wait; one line is written over the other where that can be."""
    sys.stderr.write(f"\r{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()
