"""The events of a `History`, as values that are also JSON lines.

`History` records them, `history_check` reads them. Nothing here judges.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "Ack",
    "Deliver",
    "End",
    "Event",
    "Fail",
    "Fault",
    "Final",
    "Heal",
    "Invoke",
    "Leave",
    "Open",
    "Read",
    "Trim",
    "Unknown",
]


class _Event(msgspec.Struct, frozen=True, tag_field="event", tag=str.lower, gc=False):
    """Common options."""


class Invoke(_Event, frozen=True):
    producer: str
    id: str
    digest: str


class Ack(_Event, frozen=True):
    id: str
    position: int


class Fail(_Event, frozen=True):
    id: str


class Unknown(_Event, frozen=True):
    id: str


class Open(_Event, frozen=True):
    observer: str
    cursor: int


class Deliver(_Event, frozen=True):
    observer: str
    position: int
    id: str
    digest: str


class End(_Event, frozen=True):
    observer: str
    state: str
    at: float


class Leave(_Event, frozen=True):
    observer: str


class Read(_Event, frozen=True):
    observer: str
    number: int
    begins: bool
    last: int = 0


class Final(_Event, frozen=True):
    observer: str
    rows: tuple[tuple[int, str, str], ...]
    state: str


class Fault(_Event, frozen=True):
    kind: str
    effect: int


class Heal(_Event, frozen=True):
    at: float


class Trim(_Event, frozen=True):
    first: int


Event = Invoke | Ack | Fail | Unknown | Open | Deliver | End | Leave | Read | Final | Fault | Heal | Trim
