"""What strangers can cause at will to be written: one of a kind is, and of the others how many there were.

The audit log counts refusals with `Repetitions`, and `BoundedServer` puts `RepeatedWarnings` before what uvicorn says of
connections. It looks at what kind an entry is, never at who caused it.
"""

from __future__ import annotations

import logging
from typing import Final, Generic, TypeVar

__all__ = ["Repetitions", "RepeatedWarnings"]

T = TypeVar("T")
VARIOUS: Final = "various"


class Repetitions(Generic[T]):
    """Counts entries by kind: up to `kinds_max` of them, and what is beyond by the kind that `various` of an entry says."""

    def __init__(self, kinds_max: int) -> None:
        self._kinds_max = kinds_max
        self._counts: dict[object, tuple[T, int]] = {}

    def __bool__(self) -> bool:
        """Whether anything was counted since the last `take`."""
        return bool(self._counts)

    def first(self, kind: object, entry: T, *, various: tuple[object, T]) -> T | None:
        """What is to be written now: the first of its kind (where there are too many kinds, `various`); else None."""
        if kind not in self._counts and len(self._counts) >= self._kinds_max:
            kind, entry = various
        found = self._counts.get(kind)
        self._counts[kind] = (entry, 0 if found is None else found[1] + 1)
        return entry if found is None else None

    def take(self) -> list[tuple[T, int]]:
        """The entries of which more came than were written, and how many more; then counting begins anew."""
        counts, self._counts = self._counts, {}
        return [(entry, more) for entry, more in counts.values() if more]


class RepeatedWarnings(logging.Filter):
    """Lets the first warning of each of `kinds_max` kinds pass, and counts the others until `tell`.

    Warnings with a traceback are bugs of ours, and all of them pass.
    """

    def __init__(self, kinds_max: int) -> None:
        super().__init__()
        self._repeated = Repetitions[tuple[str, int, str]](kinds_max)
        self._telling = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self._telling or record.levelno < logging.WARNING or record.exc_info:
            return True
        kind = (record.name, record.levelno, str(record.msg))
        various = (record.name, logging.WARNING, VARIOUS)
        return self._repeated.first(kind, kind, various=(various, various)) is not None

    def tell(self) -> None:
        """Write how many entries of each kind were not, and begin anew."""
        self._telling = True
        try:
            for (name, level, text), more in self._repeated.take():
                logging.getLogger(name).log(level, "%s (%d more)", text, more)
        finally:
            self._telling = False
