"""Chance by name: every part of a simulation draws from a source of its own, made from the one seed.

So what one part draws, or that it is left out, changes nothing for the others.
"""

from __future__ import annotations

from random import Random

__all__ = ["chance_of"]


def chance_of(seed: int | str, name: str) -> Random:
    """The source of chance of `name`; the same for the same seed, in every process."""
    return Random(f"{seed}/{name}")  # noqa: S311 - simulation, not secrets
