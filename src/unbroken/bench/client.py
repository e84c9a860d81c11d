"""The load client: builds it from C where there is a compiler, starts it pinned to its own core, and reads its report.

Scenarios call `LoadClient.run` with a `Load`. The client is another process so that it never shares an interpreter with
what it measures; this module never opens a socket.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec

from unbroken.bench.machine import Cores, Tools, pinned

__all__ = ["BenchError", "Dialect", "Load", "LoadClient", "Sample"]

SOURCES: Final = Path(__file__).parent / "load"
COMPILE_SECONDS_MAX: Final = 120
SETUP_SECONDS_MAX: Final = 90


class BenchError(Exception):
    """A measurement did not come about, or what it measured was wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How to speak to one server: {s} stands for the number of a stream, {n} for that of a message, {t} for its text."""

    producer_path: str = "/produce/{s}"
    viewer_path: str = "/view/{s}"
    producer_ready: str = '"ready"'
    viewer_ready: str = '"ready"'
    subprotocol: str = ""
    send_frame: str = "{t}"
    viewer_frame: str = ""
    ack: str = '"ack"'
    refusal: str = ""
    upgrade: int = 1
    """0 where viewers read a plain HTTP response instead of a WebSocket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One measurement. `mode` is window, paced, replay, idle or (a server) raw; see the C source for what they do."""

    mode: str = "window"
    streams: int = 1
    viewers: int = 1
    in_flight: int = 1
    message_bytes: int = 64
    seconds: float = 1.0
    warm_seconds: float = 0.3
    rate: float = 0.0
    count: int = 0
    connections: int = 0
    dense: int = 1
    settle_seconds: float = 0.7


class Sample(msgspec.Struct, frozen=True):
    """What one measurement found; times of the server's processes in the order in which they were named."""

    client: str
    seconds: float
    messages: int
    bytes: int
    sent: int
    acked: int
    p50_us: float
    p99_us: float
    client_cpu_seconds: float
    cpu_ns: list[int]
    rss_before_kb: int
    rss_peak_kb: int
    rss_kb: list[int]
    faults: int
    fault: str

    @property
    def rate(self) -> float:
        """Messages delivered in a second."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def cpu_us(self) -> float:
        """What all processes of the server used for each message, in microseconds."""
        return sum(self.cpu_ns) / 1000 / self.messages if self.messages else 0.0

    @property
    def cpu_percent(self) -> float:
        """What all processes of the server used, in percent of one core."""
        return sum(self.cpu_ns) / self.seconds / 1e7 if self.seconds else 0.0

    @property
    def client_busy(self) -> float:
        """The part of the time in which the client had no rest: near 1 it was the limit itself."""
        return self.client_cpu_seconds / self.seconds if self.seconds else 0.0


class LoadClient:
    """Runs loads against servers, one at a time."""

    def __init__(self, tools: Tools, cores: Cores, folder: Path) -> None:
        self._cores = cores
        self.compiled = None if tools.compiler is None else _build(tools.compiler, folder)

    @property
    def command(self) -> list[str]:
        """What starts the client, without its arguments."""
        if self.compiled is not None:
            return [str(self.compiled)]
        return [sys.executable, "-m", "unbroken.bench.load"]

    def run(self, load: Load, dialect: Dialect, port: int, pids: list[int]) -> Sample:
        """Put `load` onto the server at `port`, and give what was measured.

        Raises `BenchError` when the client failed, ran too long, or found a message lost, doubled or out of order.
        """
        words = asdict(load) | asdict(dialect) | {"port": port}
        arguments = [f"{key}={value}" for key, value in words.items()] + [f"pid={pid}" for pid in pids]
        seconds_max = load.seconds + load.warm_seconds + SETUP_SECONDS_MAX
        try:
            with pinned(self._cores.client):
                done = subprocess.run(  # noqa: S603 - our own program
                    [*self.command, *arguments], capture_output=True, timeout=seconds_max, check=False
                )
        except subprocess.TimeoutExpired:
            raise BenchError(f"the load client did not end within {seconds_max:.0f} s") from None
        if done.returncode != 0:
            raise BenchError(f"the load client failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
        sample = msgspec.json.decode(done.stdout, type=Sample)
        if sample.faults:
            raise BenchError(f"{sample.faults} faults in what was delivered, the first: {sample.fault}")
        return sample


def _build(compiler: str, folder: Path) -> Path:
    """The compiled client, from the cache when its sources are the same."""
    sources = sorted(SOURCES.glob("*.c"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]")))).hexdigest()[:16]
    program = folder / f"load-{digest}"
    if not program.exists():
        fresh = program.with_suffix(".new")
        command = [compiler, "-O2", "-o", str(fresh), *map(str, sources)]
        done = subprocess.run(  # noqa: S603 - the system's compiler, our sources
            command, capture_output=True, text=True, timeout=COMPILE_SECONDS_MAX, check=False
        )
        if done.returncode != 0:
            raise BenchError(f"the load client does not compile: {done.stderr[-1000:]}")
        fresh.replace(program)
    return program
