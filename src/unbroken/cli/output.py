"""Writing for people and for programs: tables, JSON lines, and text that cannot control a terminal.

Every verb prints through here: data on stdout, everything else on stderr. It never talks to a server.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from unbroken.errors import ConfigurationError

__all__ = [
    "TerminalFilter",
    "check_output",
    "clean",
    "coloured",
    "human_bytes",
    "human_time",
    "json_line",
    "note",
    "print_json",
    "print_table",
]

_TURNING = "\u061c\u200f\u202a-\u202e\u2066-\u2069\u206a-\u206f"
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\|(?=\x1b))"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]+[0-~]"
    r"|\x1b[0-OQ-WYZ\\`-~]"
)
_OPEN_ESCAPE = re.compile(
    r"(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*\x1b?|\x1b[ -/]*)\Z"
)
_CONTROLS = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_TURNING}]")
_COLOUR = re.compile(r"\x1b\[([0-9;]{0,64})m")
_UNSAFE_JSON = re.compile(rf"[\x7f-\x9f\u2028\u2029{_TURNING}]")
_ENDING_LINES = {ord("\n"): " ", ord("\r"): " "}
_ESCAPE_CHARACTERS_MAX = 4096
_STYLES_MAX = 16
_RESET = "\x1b[0m"
_STATE_COLOURS = {"running": "36", "completed": "32", "failed": "31", "interrupted": "31", "timed_out": "31"}


class TerminalFilter:
    """Takes what could control a terminal out of text that comes in pieces: escape sequences and control characters.

    Line feeds and tabs stay; a carriage return becomes a line feed unless one follows. A sequence that is cut between
    two pieces is recognised as long as it is not absurdly long. With `colours`, colours of letters stay: they last over
    pieces, and each piece that is given back ends without any.
    """

    def __init__(self, *, colours: bool = False) -> None:
        self._held = ""
        self._colours = colours
        self._styles: list[str] = []

    def feed(self, text: str) -> str:
        """The harmless part of `text`; an unfinished sequence or carriage return at its end waits for the next piece."""
        text = self._held + text
        open_escape = _OPEN_ESCAPE.search(text)
        cut = open_escape.start() if open_escape else len(text) - text.endswith("\r")
        if len(text) - cut > _ESCAPE_CHARACTERS_MAX:
            cut = len(text)
        self._held = text[cut:]
        # What is held may be what ends a string in front of it.
        return self._cleaned(text[:cut] + ("\x1b" if self._held.startswith("\x1b") else ""))

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return self._cleaned(held)

    def _cleaned(self, text: str) -> str:
        if not self._colours:
            return clean(text)
        before = "".join(self._styles)
        parts: list[str] = []
        end = 0
        for found in _ESCAPES.finditer(text):
            parts.append(clean(text[end : found.start()]))
            end = found.end()
            if (colour := _COLOUR.fullmatch(found[0])) is not None and (style := self._styled(colour[1])):
                parts.append(style)
        parts.append(clean(text[end:]))
        shown = "".join(parts)
        if not shown:
            return ""
        return f"{before}{shown}{_RESET}" if before or _RESET[0] in shown else shown

    def _styled(self, codes: str) -> str:
        """The sequence for what of `codes` may stay, which is remembered; empty when nothing may."""
        kept = _letters(codes)
        if not kept:
            return ""
        if kept[0] == "0":
            self._styles.clear()
        sequence = f"\x1b[{';'.join(kept)}m"
        self._styles = [*self._styles[1 - _STYLES_MAX :], sequence]
        return sequence


def _letters(codes: str) -> list[str]:
    """Of the codes of a colour sequence those for letters: never blinking, hidden, reversed or behind them."""
    given = [code or "0" for code in codes.split(";")]
    kept: list[str] = []
    while given:
        code = given.pop(0).lstrip("0") or "0"
        if code in {"38", "48"}:
            count = {"5": 2, "2": 4}.get(given[0] if given else "", 0)
            palette, given = given[:count], given[count:]
            if code == "38" and len(palette) == count > 0 and all(len(number) <= 3 for number in palette):
                kept += [code, *palette]
        elif code in {"0", "1", "2", "3", "4", "22", "23", "24", "39"} or re.fullmatch("3[0-7]|9[0-7]", code):
            kept = ["0"] if code == "0" else [*kept, code]
    return kept


def clean(text: str) -> str:
    """`text` without anything that controls a terminal or reverses its order."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", text)


def print_json(value: object) -> None:
    """One line of JSON on stdout, flushed: programs read it as it comes."""
    sys.stdout.write(json_line(value))
    sys.stdout.flush()


def json_line(value: object) -> str:
    """`value` as one line of JSON in which what could control a terminal is escaped: programs read the same."""
    text = msgspec.json.encode(value).decode().translate(_ENDING_LINES)  # between values: in a string they are escaped
    return _UNSAFE_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


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


def check_output(path: Path | None, *, setting: str) -> None:
    """Before work whose result goes into the file `path`, if one is given: `ConfigurationError` when it cannot be written.

    What is there stays as it is, and where nothing is, nothing is left.
    """
    if path is None:
        return
    there = path.exists()
    try:
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}", setting=setting) from None
