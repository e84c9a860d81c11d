"""The scenarios as values, read from `scenarios.toml`.

The runner carries them out, scorecards name them by id. They hold no code: what a fault does is in `survival.faults`.
"""

from __future__ import annotations

import tomllib
from enum import StrEnum
from importlib import resources

import msgspec

from unbroken.testing.survival.adapter import Capability

__all__ = ["FaultKind", "Scenario", "scenarios"]


class FaultKind(StrEnum):
    """What goes wrong, or what is asked at an awkward moment."""

    NONE = "none"
    HANG_UP = "hang_up"
    CUT = "cut"
    STALL = "stall"
    LATE = "late"
    KILL = "kill"
    LOSE_ANSWER = "lose_answer"
    APPEND_AFTER_END = "append_after_end"
    EVERY_CURSOR = "every_cursor"
    WEATHER = "weather"


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the scorecard."""

    id: str
    name: str
    title: str
    fault: FaultKind
    source: str
    messages: int
    """How many messages are appended at least; more while the fault is still at work, up to four times as many."""
    producers: int = 1
    observers: int = 1
    """Viewers that are there from the beginning."""
    join: tuple[int, ...] = ()
    """When further viewers come: after so many messages. One more comes after the end wherever this is given."""
    every: tuple[int, ...] = ()
    """After how many messages each viewer hangs up."""
    times: int = 1
    """How often the fault must bite."""
    payload_bytes: int = 400
    needs: frozenset[Capability] = frozenset()
    """What a server must claim for this to be asked of it."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    scenario: list[Scenario]


def scenarios() -> list[Scenario]:
    """All of them, in order."""
    text = resources.files(__package__).joinpath("scenarios.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File).scenario
