"""Owns how the tests come by the MCP SDK of the old protocol, in a virtual environment of its own.

Called by `provision` before a test run, which may fetch, and by the `mcp_legacy` fixture, which only looks. It never changes
the environment of the tests themselves: both SDKs have the same name.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.environments import environment_folder, provide_environment
from tests.support.provision_node import START_SECONDS_MAX

NAME = "mcp-legacy"
VERSION = "import importlib.metadata, mcp; print(importlib.metadata.version('mcp'))"


@dataclass(frozen=True, slots=True)
class LegacySdk:
    """A Python in whose environment `mcp` is the SDK of the old protocol."""

    python: Path
    version: str


def find_mcp_legacy() -> LegacySdk | None:
    """The environment that the lock file describes, if it is there and works. Fetches nothing."""
    python = environment_folder(NAME) / "bin" / "python"
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
    provide_environment(NAME)
    return find_mcp_legacy()
