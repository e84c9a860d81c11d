"""The `replay` scenario: a long stream read from its first message to its last by one viewer.

It fills a database once, and then reads it with a fresh server process for each sample, so that memory is measured from a
known beginning. Called by `scenarios`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from unbroken.bench.client import BenchError, Dialect, Load
from unbroken.bench.report import Comparison, compare, middle
from unbroken.bench.subjects import Subject, node, ours, raw

if TYPE_CHECKING:
    from unbroken.bench.scenarios import Runner

__all__ = ["replay"]

MESSAGE_BYTES: Final = 64 * 1024
OURS: Final = "ours, from SQLite"
NODE: Final = "Node ws, from memory"
RAW: Final = "TCP, from memory"
SECONDS_MAX: Final = 240.0
GROWTH_MB_MAX: Final = 64
"""What a server may grow by while it replays, however long the stream is: caches of both reader threads and one window."""


def replay(runner: Runner) -> Iterator[Comparison | None]:
    """How fast one viewer catches up, and whether the server's memory depends on how far behind it was."""
    count = runner.scale.replay_bytes // MESSAGE_BYTES
    size = f"{count * MESSAGE_BYTES >> 20} MB"
    with tempfile.TemporaryDirectory(prefix="replay-", dir=runner.bench.folder) as folder:
        subject = ours("process", name=OURS, database=Path(folder) / "bench.db")
        runner.tell(f"replay: filling {size}")
        try:
            runner.sample(subject, _filling(count))
        except BenchError as error:
            runner.failures.append(f"replay: filling: {error}")
            return
        reading = Load(mode="replay", count=count, seconds=SECONDS_MAX, message_bytes=MESSAGE_BYTES)
        theirs = replace(reading, dense=0)
        entries: list[tuple[Subject, Load]] = [(subject, reading)]
        if runner.bench.tools.ws:
            dialect = replace(Dialect(), viewer_path=f"/replay/{count}/{MESSAGE_BYTES}")
            entries.append((node("plain", name=NODE, dialect=dialect), theirs))
        entries.append((raw(count, MESSAGE_BYTES, name=RAW), theirs))
        found = runner.samples("replay", entries)
    speed = {name: middle([sample.bytes / sample.seconds / 1e9 for sample in group]) for name, group in found.items()}
    growth = middle([(sample.rss_peak_kb - sample.rss_before_kb) / 1024 for sample in found[OURS]])
    measure = f"replay of {size} in messages of 64 KB (GB/s)"
    yield compare(11, measure, speed.get(OURS), NODE, speed.get(NODE), ">= 1")
    yield compare(11, measure, speed.get(OURS), RAW, speed.get(RAW), ">= 0.4")
    yield compare(
        11, f"growth of the server while it replays {size} (MB)", growth, "absolute", None, f"<= {GROWTH_MB_MAX}"
    )


def _filling(count: int) -> Load:
    return Load(
        viewers=0, in_flight=32, count=count, message_bytes=MESSAGE_BYTES, seconds=SECONDS_MAX, warm_seconds=SECONDS_MAX
    )
