"""What the benchmark knows of the machine: its cores, its ports, its disk, and the programs that yardsticks need.

Every scenario asks here before it starts something. Nothing is installed here except the `ws` package, into a cache folder
of the benchmark's own.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Cores", "Missing", "Tools", "cache_folder", "describe", "find_tools", "pinned"]

WS_VERSION: Final = "8.23.0"
NPM_SECONDS_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Cores:
    """Where servers and clients run: one core each where there are two, else wherever the system puts them."""

    server: frozenset[int]
    client: frozenset[int]
    all: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first two cores that this process may use."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(frozenset(), frozenset(), frozenset())
        mine = sorted(os.sched_getaffinity(0))
        everything = frozenset(mine)
        if len(mine) < 2:
            return cls(everything, everything, everything)
        return cls(frozenset(mine[:1]), frozenset(mine[1:2]), everything)


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside runs on `cores` only, with all its threads."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cache_folder() -> Path:
    """Where the benchmark keeps what it builds and the databases that it fills; on a disk, not in memory."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "unbroken" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class Missing:
    """A yardstick's need that this machine does not meet, and how it would."""

    name: str
    cure: str


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that were found; `missing` says what was not."""

    compiler: str | None
    node: str | None
    ws: Path | None
    redis: str | None
    missing: tuple[Missing, ...]


def find_tools(folder: Path) -> Tools:
    """What there is on this machine; fetches `ws` with npm into `folder` when it is not there yet."""
    missing = []
    compiler = shutil.which("cc")
    if compiler is None or platform.system() != "Linux":
        compiler = None
        missing.append(Missing("a C compiler on Linux", "apt install gcc libc6-dev; the Python load client is used"))
    node = shutil.which("node")
    ws = None
    if node is None:
        missing.append(Missing("Node", "apt install nodejs npm"))
    else:
        ws = _find_ws(folder)
        if ws is None:
            missing.append(
                Missing(f"ws {WS_VERSION}", f"npm install --ignore-scripts --prefix {folder} ws@{WS_VERSION}")
            )
    redis = shutil.which("redis-server")
    if redis is None:
        missing.append(Missing("redis-server", "apt install redis-server"))
    for module in ("redis", "fastapi"):
        if importlib.util.find_spec(module) is None:
            redis = None
            missing.append(Missing(f"the Python package {module}", f"pip install {module}"))
    return Tools(compiler, node, ws, redis, tuple(missing))


def _find_ws(folder: Path) -> Path | None:
    place = folder / f"ws-{WS_VERSION}"
    if (place / "node_modules" / "ws" / "package.json").is_file():
        return place
    npm = shutil.which("npm")
    if npm is None:
        return None
    place.mkdir(parents=True, exist_ok=True)
    command = [
        npm,
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(place),
        f"ws@{WS_VERSION}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=NPM_SECONDS_MAX, check=False)  # noqa: S603 - our own words
    except subprocess.TimeoutExpired:
        return None
    return place if done.returncode == 0 else None


def describe(folder: Path, tools: Tools) -> dict[str, str]:
    """The machine and the versions that figures belong to."""
    facts = {
        "cores": f"{len(Cores.of_this_machine().all) or os.cpu_count()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "disk": _file_system(folder),
        "python": platform.python_version(),
        "load client": "C" if tools.compiler else "Python",
    }
    if tools.node:
        facts["node"] = _version([tools.node, "--version"])
    if tools.ws:
        facts["ws"] = WS_VERSION
    if tools.redis:
        facts["redis"] = _version([tools.redis, "--version"])
    return facts


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - found by `which`
    return done.stdout.strip().partition(" sha=")[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown"
    holding = [(len(at), kind) for at, kind in mounts if folder.is_relative_to(at)]
    return max(holding, default=(0, "unknown"))[1]
