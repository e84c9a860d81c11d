"""What an operator may say of one MCP server besides how it is reached: the nested object `unbroken` of its entry.

Other programs that read the same file ignore it. Unknown names are errors, so that a misspelt limit is not a missing one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from unbroken.errors import ConfigurationError
from unbroken.limits import DEFAULT_LIMITS, Limits

__all__ = ["OPTION_NAMES", "Options", "parse_options", "seconds_of"]

Retry = Literal["ask", "always", "never"]
Session = Literal["call", "server"]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How calls of one server are made.

    `trusted`: its tools' own word that they only read, or may be repeated, is believed. `retry`: what becomes of a call that
    broke off and may have run; `ask` repeats only what is known to be safe, `always` everything, `never` nothing. `session`
    `server` keeps one session for all calls, for servers that remember. `shared` calls use one process at one time, of at
    most `max_processes`. `output_from_progress` names tools that say in the messages of their progress what they put out.
    `public` names variables and headers whose values are no secrets.
    """

    trusted: bool = False
    retry: Retry = "ask"
    session: Session = "call"
    max_processes: int = DEFAULT_LIMITS.mcp_processes_max
    max_calls: int = DEFAULT_LIMITS.mcp_calls_max
    shared: int = 1
    idle_seconds: float = DEFAULT_LIMITS.mcp_idle_seconds
    total_seconds: float = DEFAULT_LIMITS.mcp_total_seconds
    connect_seconds: float | None = None
    start_seconds: float | None = None
    output_from_progress: frozenset[str] = frozenset()
    public: frozenset[str] = frozenset()

    def applied(self, limits: Limits) -> Limits:
        """The limits of one server: `limits` with what is said here."""
        connect = limits.mcp_connect_seconds if self.connect_seconds is None else self.connect_seconds
        start = limits.mcp_start_seconds if self.start_seconds is None else self.start_seconds
        return replace(limits, mcp_connect_seconds=connect, mcp_start_seconds=start)


_WHOLE: Final = {"max_processes": 64, "max_calls": 10_000, "shared": 1_000}
_SECONDS: Final = {
    "idle_timeout": "idle_seconds",
    "total_timeout": "total_seconds",
    "connect_timeout": "connect_seconds",
    "start_timeout": "start_seconds",
}
_WORDS: Final = {"retry": ("ask", "always", "never"), "session": ("call", "server")}
_NAMES: Final = {"outputFromProgress": "output_from_progress", "public": "public"}
NAMES_MAX: Final = 1_000
OPTION_NAMES: Final = tuple(sorted(("trusted", *_WORDS, *_WHOLE, *_SECONDS, *_NAMES)))


def parse_options(server: str, raw: object, limits: Limits = DEFAULT_LIMITS) -> Options:
    """The options that the object `raw` sets; `ConfigurationError` names the server and the option that is wrong."""
    if raw is None:
        return Options()
    if not isinstance(raw, Mapping):
        raise ConfigurationError(f'MCP server {server!r}: "unbroken" is an object')
    found: dict[str, object] = {}
    for name, value in raw.items():
        field, parsed = _option(server, str(name), value, limits)
        found[field] = parsed
    return Options(**found)  # type: ignore[arg-type]


def _option(server: str, name: str, value: object, limits: Limits) -> tuple[str, object]:
    place = f"MCP server {server!r}: unbroken.{name}"
    if name == "trusted":
        if not isinstance(value, bool):
            raise ConfigurationError(f"{place} is true or false")
        return name, value
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise ConfigurationError(f"{place} is one of {', '.join(_WORDS[name])}")
        return name, value
    if name in _WHOLE:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _WHOLE[name]:
            raise ConfigurationError(f"{place} is a whole number from 1 to {_WHOLE[name]}")
        return name, value
    if name in _SECONDS:
        return _SECONDS[name], _duration(place, value, limits)
    if name in _NAMES:
        if not isinstance(value, list) or len(value) > NAMES_MAX or not all(isinstance(item, str) for item in value):
            raise ConfigurationError(f"{place} is a list of names")
        return _NAMES[name], frozenset(value)
    raise ConfigurationError(f"{place} is no option; there are {', '.join(OPTION_NAMES)}")


def _duration(place: str, value: object, limits: Limits) -> float:
    seconds = seconds_of(value)
    if seconds is None or not 0 < seconds <= limits.run_seconds_max:
        raise ConfigurationError(f'{place} is a duration like 30, "30s", "2m" or "1h"')
    return seconds


def seconds_of(value: object) -> float | None:
    """A number of seconds, or text with a unit (ms, s, m, h, d) as seconds; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2] or "s"] if match else None
