"""Entries of a log that strangers can cause at will: one of a kind is written, and of the others how many there were.

`BoundedServer` puts a `Repetitions` before what uvicorn says of connections. It looks at what kind an entry is, never at who
caused it; entries with a traceback are bugs of ours, and all of them are written.
"""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["Repetitions"]

VARIOUS: Final = "various"


class Repetitions(logging.Filter):
    """Lets the first warning of each of `kinds_max` kinds pass, and counts the others until `tell`."""

    def __init__(self, kinds_max: int) -> None:
        super().__init__()
        self._kinds_max = kinds_max
        self._counts: dict[tuple[str, int, str], int] = {}
        self._telling = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self._telling or record.levelno < logging.WARNING or record.exc_info:
            return True
        kind = (record.name, record.levelno, str(record.msg))
        if kind not in self._counts and len(self._counts) >= self._kinds_max:
            kind = (record.name, logging.WARNING, VARIOUS)
        count = self._counts.get(kind)
        self._counts[kind] = 0 if count is None else count + 1
        return count is None

    def tell(self) -> None:
        """Write how many entries of each kind were not, and begin anew."""
        counts, self._counts = self._counts, {}
        self._telling = True
        try:
            for (name, level, text), more in counts.items():
                if more:
                    logging.getLogger(name).log(level, "%s (%d more)", text, more)
        finally:
            self._telling = False
