"""The sweep: the same work again and again, with the fault one operation later each time, until it is past the end.

Tests give it one attempt as a function of the fault's place. It judges nothing: an attempt raises what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from unbroken.testing.disk.faults import PlantedFault

__all__ = ["Sweep", "sweep"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """How many attempts there were, and how many operations were harmed in all of them."""

    runs: int
    bites: int


async def sweep(
    attempt: Callable[[int], Awaitable[PlantedFault]], *, start: int = 1, step: int = 1, runs_max: int = 10_000
) -> Sweep:
    """Call `attempt` with 1, 2, 3 … until the fault that it planted there did not bite.

    `step` visits every so many-th place only. Raises `AssertionError` when the first fault does not bite, because then
    nothing was tried, and when there is no end after `runs_max`.
    """
    bites = 0
    for runs, place in enumerate(range(start, start + runs_max * step, step)):
        planted = await attempt(place)
        if not planted.bites:
            assert runs, "inconclusive: the fault did not bite at all"
            return Sweep(runs, bites)
        bites += planted.bites
    raise AssertionError(f"the work does not end after {runs_max} attempts")
