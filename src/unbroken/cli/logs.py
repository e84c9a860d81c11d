"""Where the log goes: standard error, as text for people or as JSON lines for programs.

`serve` configures it once. Libraries only ever use `logging`; nothing here decides what is logged. Whatever anybody logs, a
line holds no credentials and no variables of the code, and cannot pretend to be another line or move a terminal's cursor.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, TextIO

import structlog

from unbroken.redaction.known import HIDDEN, Known
from unbroken.redaction.shapes import LOGGED, hide

__all__ = ["configure"]

CHARACTERS_MAX: Final = 16_384
"""Of one text in one line; the beginning is kept."""
_SECRET_FIELD: Final = re.compile(r"passw|secret|token|ticket|cookie|authorization|api_?key|credentials", re.IGNORECASE)
"""What a field is called whose value is never written."""
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that end a line, move a cursor, turn the direction of writing, or cannot be seen or written."""


def configure(level: str, form: str, secrets: Iterable[str] = ()) -> None:
    """Send everything that is logged from now on to standard error, `secrets` left out."""
    # Libraries tell of their own steps; what happens to streams is said by ours.
    for name in ("uvicorn", "websockets"):
        logging.getLogger(name).setLevel(level.upper() if level == "debug" else "WARNING")
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    final: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,  # the console's own would show variables: arguments and secrets
        _Clean(secrets, lines=form == "json"),
    ]
    if form == "json":
        final.append(structlog.processors.JSONRenderer())
    else:
        final.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0))
    handler = _Handler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


class _Handler(logging.StreamHandler[TextIO]):
    """As its base, but it does not show the arguments of an entry that could not be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is of the standard library
        with suppress(OSError, ValueError):
            self.stream.write(f"an entry of {record.name} at {record.filename}:{record.lineno} could not be written\n")


class _Clean:
    """Takes secrets out of an entry; without `lines` an entry is a line of text, and what cannot be printed is escaped."""

    def __init__(self, secrets: Iterable[str], *, lines: bool) -> None:
        self._known = Known(secrets)
        self._lines = lines

    def __call__(self, _logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {self._text(name): self._field(name, value) for name, value in entry.items()}

    def _field(self, name: str, value: object) -> object:
        if isinstance(value, bool | int | float | None):
            return value
        if _SECRET_FIELD.search(name):
            return HIDDEN
        return self._traceback(str(value)) if name == "exception" else self._value(value)

    def _value(self, value: object) -> object:
        """What is no text is written as its text would be: it may hold one."""
        if isinstance(value, Mapping):
            return {self._text(str(name)): self._field(str(name), item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        return value if isinstance(value, bool | int | float | None) else self._text(str(value))

    def _text(self, text: str) -> str:
        text = hide(self._known(text[: 2 * CHARACTERS_MAX]), LOGGED)[:CHARACTERS_MAX]
        return text if self._lines else _UNSEEN.sub(_escaped, text)

    def _traceback(self, text: str) -> str:
        """A traceback keeps its lines, each of them indented: none can pretend to be an entry."""
        lines = hide(self._known(text[-2 * CHARACTERS_MAX :]), LOGGED)[-CHARACTERS_MAX:]
        if self._lines:
            return lines
        return "\n".join(f"  {_UNSEEN.sub(_escaped, line)}" for line in lines.split("\n"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
