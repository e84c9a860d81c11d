"""Owns how the tests come by the MCP SDK of the old protocol, in a virtual environment of its own.

Called by `provision` before a test run, which may fetch, and by the `mcp_legacy` fixture, which only looks. It never changes
the environment of the tests themselves: both SDKs have the same name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.provision_chromium import cache_folder
from tests.support.provision_node import INSTALL_SECONDS_MAX, ROOT, START_SECONDS_MAX

LOCK = ROOT / "requirements" / "mcp-legacy.txt"
VERSION = "import importlib.metadata, mcp; print(importlib.metadata.version('mcp'))"
COMPLAINT_CHARACTERS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class LegacySdk:
    """A Python in whose environment `mcp` is the SDK of the old protocol."""

    python: Path
    version: str


def find_mcp_legacy() -> LegacySdk | None:
    """The environment that the lock file describes, if it is there and works. Fetches nothing."""
    python = _folder() / "bin" / "python"
    if not python.is_file():
        return None
    try:
        done = subprocess.run(
            [python, "-c", VERSION], capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return LegacySdk(python, done.stdout.strip()) if done.returncode == 0 else None


def provide_mcp_legacy() -> LegacySdk | None:
    """`find_mcp_legacy`, else make it: with uv where it is, else with pip."""
    found = find_mcp_legacy()
    if found is not None:
        return found
    print("installing requirements/mcp-legacy.txt", flush=True)
    target = _folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (_with_uv(target) or _with_pip(target)):
        shutil.rmtree(target, ignore_errors=True)
    return find_mcp_legacy()


def _folder() -> Path:
    """A folder for each lock and each Python."""
    about = f"{sys.version}{sys.base_prefix}".encode() + LOCK.read_bytes()
    return cache_folder() / f"mcp-legacy-{hashlib.sha256(about).hexdigest()[:12]}"


def _with_pip(target: Path) -> bool:
    pip: list[str | Path] = [target / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    return _done([sys.executable, "-m", "venv", "--clear", target]) and _done(
        [*pip, "install", "--require-hashes", "-r", LOCK]
    )


def _with_uv(target: Path) -> bool:
    uv = shutil.which("uv")
    if uv is None:
        return False
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        target / "bin" / "python",
        "--require-hashes",
        "-r",
        LOCK,
    ]
    return _done([uv, "venv", "--quiet", "--clear", "--python", sys.executable, target]) and _done(install)


def _done(command: list[str | Path]) -> bool:
    done = subprocess.run(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        complaint = done.stderr[-COMPLAINT_CHARACTERS_MAX:]
        print(f"{' '.join(map(str, command))} failed (exit {done.returncode})\n{complaint}", file=sys.stderr)
    return done.returncode == 0


def _environment() -> dict[str, str]:
    """uv reads no pip settings; a mirror that pip is told of is meant for it too."""
    environment = dict(os.environ)
    if not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & environment.keys():
        asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False)
        if told.returncode == 0 and told.stdout.strip():
            environment["UV_DEFAULT_INDEX"] = told.stdout.strip()
    return environment
