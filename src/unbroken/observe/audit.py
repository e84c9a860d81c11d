"""The audit log: who did what, and who was not let, as lines of the log `unbroken.audit` and of a file.

Whoever decides such a thing hands an event to `Audit.record`; one server has one `Audit`. It never raises into a request,
never holds more than a bounded number of repetitions, and never writes payloads; what looks like a secret it leaves out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from unbroken.clock import Clock
from unbroken.errors import ConfigurationError
from unbroken.identity import Principal
from unbroken.limits import Limits
from unbroken.observe.audit_events import AuditEvent
from unbroken.observe.repetitions import Repetitions
from unbroken.redaction.shapes import LOGGED, hide

__all__ = ["Audit", "facts_of"]

Facts = dict[str, object]

_log: Final = logging.getLogger("unbroken.audit")
_problems: Final = logging.getLogger(__name__)


class Audit:
    """Writes events down. Belongs to one event loop; works without one too, as in a command.

    Each entry goes to the logger `unbroken.audit`. Of what is `counted`, the first is written at once and the number of the
    others after `audit_interval_seconds`.
    """

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self._file: _File | None = None
        self._repeated = Repetitions[Facts](limits.audit_kinds_max)
        self._news = asyncio.Event()
        self.failing = False
        """Whether the last line could not be written to the file."""

    def write_to(self, path: Path) -> None:
        """From now on every entry is also a line of JSON at the end of this file, which is made with mode 0600.

        A line is handed to the system at once, so it survives the death of the process, and is on the disk a second later, so
        a loss of power takes at most the last second. The file may be moved away or truncated at any time. Raises
        `ConfigurationError` when it cannot be written.
        """
        file = _File(path)
        try:
            file.add(b"")
        except OSError as error:
            raise ConfigurationError(
                f"the audit file {path} cannot be written: {error.strerror}", setting="audit"
            ) from None
        self._file = file

    def record(self, event: AuditEvent) -> None:
        """Write `event` down, or count it."""
        facts = facts_of(event, self._limits.audit_text_characters_max)
        if not event.counted:
            self._write(facts)
            return
        kind = tuple(f"{name}={value}" for name, value in facts.items())
        first = self._repeated.first(kind, facts, various=((event.event,), {"event": event.event, "various": True}))
        if first is not None:
            self._write(first)
        self._news.set()

    async def run(self) -> None:
        """Bring lines to the disk and tell the numbers, for ever; the rest is done by `close`."""
        loop = asyncio.get_running_loop()
        told = loop.time()
        while True:
            await self._news.wait()
            await asyncio.sleep(self._limits.audit_sync_seconds)
            self._news.clear()
            if self._file is not None:
                await asyncio.to_thread(self._file.sync)
            if not self._repeated:
                told = loop.time()
            elif loop.time() - told >= self._limits.audit_interval_seconds:
                told = loop.time()
                self._tell()
            else:
                self._news.set()

    def close(self) -> None:
        """Tell the numbers, bring everything to the disk and let go of the file; idempotent, and it may be used again."""
        self._tell()
        if self._file is not None:
            self._file.sync()
            self._file.close()

    def _tell(self) -> None:
        for facts, more in self._repeated.take():
            self._write({**facts, "more": more})

    def _write(self, facts: Facts) -> None:
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        _log.info(facts["event"], extra={name: value for name, value in facts.items() if name != "event"})
        if self._file is None:
            return
        self._news.set()
        try:
            self._file.add(json.dumps({"time": now, **facts}).encode() + b"\n")  # in ASCII: nothing moves a cursor
        except OSError as error:
            if not self.failing:
                _problems.error("the audit file cannot be written: %s", error.strerror)
            self.failing = True
        else:
            self.failing = False


def facts_of(event: AuditEvent, characters_max: int) -> Facts:
    """What an entry says of `event`: its fields that say something; texts are bounded and hold nothing a log may not hold."""
    facts: Facts = {"event": event.event}
    for field in fields(event):
        value: object = getattr(event, field.name)
        if isinstance(value, Principal):
            told = {"by": value.by, "by_subject": value.subject, "by_tenant": value.tenant, "with": value.credential}
            facts |= {name: hide(text, LOGGED)[:characters_max] for name, text in told.items() if text}
        elif isinstance(value, str):
            facts |= {field.name: hide(value, LOGGED)[:characters_max]} if value else {}
        elif isinstance(value, tuple) and value:
            facts[field.name] = [hide(str(item), LOGGED) for item in value]
        elif value not in (None, ()):
            facts[field.name] = value
    return facts


class _File:
    """Lines at the end of a file that somebody else may move away or truncate meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: int | None = None

    def add(self, line: bytes) -> None:
        """One line, whole, behind whatever is there."""
        descriptor = self._descriptor()
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]

    def _descriptor(self) -> int:
        """The file that has the name now; a new one where it was moved away."""
        if self._open is not None:
            mine = os.fstat(self._open)
            with suppress(FileNotFoundError):
                there = self._path.stat()
                if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                    return self._open
            self.close()
        self._open = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._open

    def sync(self) -> None:
        """Bring it to the disk, as far as that can be done."""
        if self._open is not None:
            with suppress(OSError):
                os.fsync(self._open)

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None
