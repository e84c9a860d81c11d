"""What the Python load client measures: counts, latencies, and the server's processor time and memory.

The client's modes call it. Where the system has no `/proc` the costs of the server are reported as zero.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from unbroken.bench.client import Sample

__all__ = ["Meter"]

LATENCIES_MAX: Final = 1_000_000


class Meter:
    """The counts of one measurement; between `begin` and `end` deliveries are measured."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self.sent = self.acked = self.delivered = self.received_bytes = 0
        self.begun = False
        self.faults: list[str] = []
        self.steps: list[int] = []
        self._measuring = False
        self._measured = 0
        self._latencies: list[int] = []
        self._span = (0, 0)
        self._costs: list[int] = []
        self._own = 0.0
        self._bytes = 0
        self._rss_peak = 0
        self._rss_before = self.look()

    def deliver(self, sent_ns: int) -> None:
        """A message has arrived that was sent then (0: unknown)."""
        self.delivered += 1
        if self._measuring:
            self._measured += 1
            if sent_ns and len(self._latencies) < LATENCIES_MAX:
                self._latencies.append(time.monotonic_ns() - sent_ns)

    def fault(self, text: str) -> None:
        """Something was lost, doubled or out of order."""
        self.faults.append(text)

    def look(self) -> int:
        """The server's resident memory now, in KB."""
        if not self._pids:
            return 0
        try:
            pages = int(Path(f"/proc/{self._pids[0]}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            return 0
        kb = pages * os.sysconf("SC_PAGESIZE") // 1024
        self._rss_peak = max(self._rss_peak, kb)
        return kb

    def begin(self) -> None:
        """What follows counts."""
        self.begun = self._measuring = True
        self._costs = [_cpu_ns(pid) for pid in self._pids]
        self._own = time.process_time()
        self._bytes = self.received_bytes
        self._span = (time.monotonic_ns(), 0)

    def end(self) -> None:
        """What follows does not count."""
        self._measuring = False
        self._span = (self._span[0], time.monotonic_ns())
        self._costs = [_cpu_ns(pid) - before for pid, before in zip(self._pids, self._costs, strict=True)]
        self._own = time.process_time() - self._own
        self._bytes = self.received_bytes - self._bytes

    def sample(self) -> Sample:
        """The report."""
        latencies = sorted(self._latencies) or [0]
        return Sample(
            client="python",
            seconds=(self._span[1] - self._span[0]) / 1e9,
            messages=self._measured,
            bytes=self._bytes,
            sent=self.sent,
            acked=self.acked,
            p50_us=latencies[len(latencies) // 2] / 1000,
            p99_us=latencies[len(latencies) * 99 // 100] / 1000,
            client_cpu_seconds=self._own,
            cpu_ns=self._costs,
            rss_before_kb=self._rss_before,
            rss_peak_kb=self._rss_peak,
            rss_kb=self.steps,
            faults=len(self.faults),
            fault=self.faults[0] if self.faults else "",
        )


def _cpu_ns(pid: int) -> int:
    """The processor time of all threads of a process."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(task.read_text(encoding="ascii").split()[0])
        except (OSError, IndexError):  # the thread has ended meanwhile
            continue
    return total
