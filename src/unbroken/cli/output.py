"""Writing for people and for programs: tables, JSON lines, and text that cannot control a terminal.

Every verb prints through here: data on stdout, everything else on stderr. It never talks to a server.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

__all__ = ["TerminalFilter", "clean", "coloured", "human_bytes", "human_time", "note", "print_json", "print_table"]

_ESCAPES = re.compile(
    r"\x1b(?:"
    r"\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|(?=\x1b))"  # OSC, DCS, SOS, PM, APC
    r"|[ -/]+[0-~]"
    r"|[0-OQ-WYZ\\`-~]"
    r")"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_OPEN_ESCAPE = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)|\x9b[0-?]*[ -/]*)\Z")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ESCAPE_CHARACTERS_MAX = 4096
_STATE_COLOURS = {"running": "36", "completed": "32", "failed": "31", "interrupted": "31", "timed_out": "31"}


class TerminalFilter:
    """Takes what could control a terminal out of text that comes in pieces: escape sequences and control characters.

    Line feeds and tabs stay; a carriage return becomes a line feed unless one follows. A sequence that is cut between
    two pieces is recognised as long as it is not absurdly long.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The harmless part of `text`; an unfinished sequence or carriage return at its end waits for the next piece."""
        text = self._held + text
        open_escape = _OPEN_ESCAPE.search(text)
        cut = open_escape.start() if open_escape else len(text) - text.endswith("\r")
        if len(text) - cut > _ESCAPE_CHARACTERS_MAX:
            cut = len(text)
        self._held = text[cut:]
        return clean(text[:cut])

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return clean(held)


def clean(text: str) -> str:
    """`text` without anything that controls a terminal or reverses its order."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", text)


def print_json(value: object) -> None:
    """One line of JSON on stdout, flushed: programs read it as it comes."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line for people, on stderr."""
    sys.stderr.write(f"unbroken: {clean(text)}\n")
    sys.stderr.flush()


def coloured(state: str) -> str:
    """A stream's state, in colour where stdout is a terminal that wants it."""
    colour = _STATE_COLOURS.get(state)
    if colour is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return state
    return f"\x1b[{colour}m{state}\x1b[0m"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, colour: int = -1) -> None:
    """Aligned columns on stdout; nothing is cut off, so that it can be searched. `colour` is the column of a state."""
    cleaned = [[clean(cell).replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cleaned) for column in range(len(head))]
    for row in cleaned:
        padding = [" " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [coloured(cell) if column == colour else cell for column, cell in enumerate(row)]
        sys.stdout.write("  ".join(map("".join, zip(cells, padding, strict=True))).rstrip() + "\n")
    sys.stdout.flush()


def human_bytes(count: int) -> str:
    """A number of bytes in the largest unit that leaves at least one whole."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def human_time(milliseconds: int | None) -> str:
    """A time of the server's clock, in UTC."""
    if not milliseconds:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
