"""Owns one round of fuzzing: a target, some examples, and what was found told with what brings it back.

The suite runs every target for a moment; `python -m tests.fuzz` goes on for as long as it is told.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz import service
from tests.fuzz.parsers import PARSERS, Target

__all__ = ["EXAMPLE_SECONDS_MAX", "every_target", "fuzz", "in_time"]

EXAMPLE_SECONDS_MAX: Final = 30
"""An example that takes longer ends the run with a traceback: it is a defect too."""


@contextmanager
def every_target() -> Iterator[list[Target]]:
    """All of them, while the block runs."""
    with service.running() as served:
        yield [*PARSERS, *served]


@contextmanager
def in_time() -> Iterator[None]:
    """One example: what takes too long ends the process, and tells where it was."""
    faulthandler.dump_traceback_later(EXAMPLE_SECONDS_MAX, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def fuzz(target: Target, *, examples: int, number: int) -> None:
    """Try `examples` of what the target takes; raises what went wrong, with the smallest input that shows it."""

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def attempt(given: Any) -> None:
        with in_time():
            target.attempt(given)

    try:
        attempt()
    except BaseException as error:
        error.add_note(f"again: python -m tests.fuzz --target {target.name!r} --seed {number} --examples {examples}")
        raise
