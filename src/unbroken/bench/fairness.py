"""Whether one tenant at its limit slows another: the time to an acknowledgement of one, alone and beside the other.

Two users of a server with their own tokens. One appends a hundred times a second; the other, from a process of its own, as
much as it can, which is far beyond what it may.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from unbroken.bench.client import BenchError
from unbroken.bench.report import Comparison, compare
from unbroken.bench.subjects import ours
from unbroken.client import Client
from unbroken.errors import UnbrokenError

if TYPE_CHECKING:
    from pathlib import Path

    from unbroken.bench.scenarios import Runner

__all__ = ["fairness"]

PAUSE_SECONDS: Final = 0.01
FLOODERS: Final = 8
FLOOD_MESSAGES: Final = 100
VARIABLE: Final = "UNBROKEN_BENCH_TOKEN"


def fairness(runner: Runner) -> Iterator[Comparison | None]:
    """Row 15: the time to an acknowledgement, alone and beside another tenant that is at its limit."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(runner.scale.rounds):
        for flooded in (False, True):
            what = "beside one at its limit" if flooded else "alone"
            runner.tell(f"fairness: {what} ({turn + 1} of {runner.scale.rounds})")
            times[flooded] += _sample(runner, flooded=flooded)
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        alone, beside = _quantile(times[False], part), _quantile(times[True], part)
        measure = f"append to acknowledgement beside a tenant at its limit: {name} (ms)"
        yield compare(15, measure, beside, "alone", alone, "<= 3" if name == "p50" else "")


def _sample(runner: Runner, *, flooded: bool) -> list[float]:
    """Milliseconds of each append of the quiet tenant."""
    folder = runner.bench.folder / f"fairness-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    database = folder / f"{time.monotonic_ns()}.db"
    try:
        with ours("process", name="", database=database).running(runner.bench) as running, ExitStack() as stack:
            url = f"http://127.0.0.1:{running.port}"
            tokens = {tenant: _token(database, tenant) for tenant in ("quiet", "loud")}
            if flooded:
                stack.enter_context(_flood(url, tokens["loud"]))
            return asyncio.run(_quiet(url, tokens["quiet"], runner.scale.seconds))
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _token(database: Path, tenant: str) -> str:
    """A key of the only user of `tenant`."""
    command = [sys.executable, "-m", "unbroken", "token", "create", "--store", f"sqlite:///{database}"]
    made = subprocess.run(  # noqa: S603 - our own command
        [*command, "--tenant", tenant, "--subject", "user", "--json"], capture_output=True, check=False, timeout=60
    )
    if made.returncode:
        raise BenchError(f"no token could be made: {made.stderr.decode(errors='replace')[-500:]}")
    return str(msgspec.json.decode(made.stdout)["token"])


@contextmanager
def _flood(url: str, token: str) -> Iterator[None]:
    """A process that appends as much as it can."""
    command = [sys.executable, "-m", "unbroken.bench.fairness", url]
    process = subprocess.Popen(command, env={**os.environ, VARIABLE: token}, stdout=subprocess.PIPE)  # noqa: S603 - itself
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"refused\n":
            raise BenchError("the loud tenant never met its limit")
        yield
    finally:
        process.kill()
        process.communicate()


async def _quiet(url: str, token: str, seconds: float) -> list[float]:
    times: list[float] = []
    async with Client(url, token=token) as client:
        await client.create("quiet")
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            begun = time.perf_counter()
            await client.append("quiet", ["a message"])
            times.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(PAUSE_SECONDS)
    return times


async def _loud(url: str, token: str) -> None:
    """Append without end; say once that the limit was met. Its parent ends it."""
    told = False

    async def one(number: int) -> None:
        nonlocal told
        async with Client(url, token=token) as client:
            await client.create(f"loud/{number}")
            while True:
                begun = time.monotonic()
                try:
                    await client.append(f"loud/{number}", ["x" * 64] * FLOOD_MESSAGES)
                except UnbrokenError as error:
                    if error.code != "quota_exceeded":
                        raise
                    begun = 0.0
                if not told and time.monotonic() - begun > 0.1:  # it was made to wait, or refused
                    told = True
                    print("refused", flush=True)

    async with asyncio.TaskGroup() as tasks:
        for number in range(FLOODERS):
            tasks.create_task(one(number))


def _quantile(values: list[float], part: float) -> float | None:
    return sorted(values)[int(len(values) * part)] if values else None


if __name__ == "__main__":
    asyncio.run(_loud(sys.argv[1], os.environ[VARIABLE]))
