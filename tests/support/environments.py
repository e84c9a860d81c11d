"""Owns virtual environments apart from that of the tests, each made from a lock file of its own.

Called by the provisioners of what cannot stand beside the tests' own packages. It never changes the environment that runs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.provision_chromium import cache_folder
from tests.support.provision_node import INSTALL_SECONDS_MAX, ROOT, START_SECONDS_MAX

__all__ = ["environment_folder", "provide_environment"]

COMPLAINT_CHARACTERS_MAX = 2_000


def environment_folder(name: str) -> Path:
    """Where the environment of requirements/NAME.txt is: a folder for each lock and each Python."""
    about = f"{sys.version}{sys.base_prefix}".encode() + lock_of(name).read_bytes()
    return cache_folder() / f"{name}-{hashlib.sha256(about).hexdigest()[:12]}"


def lock_of(name: str) -> Path:
    """The lock file of an environment."""
    return ROOT / "requirements" / f"{name}.txt"


def provide_environment(name: str) -> None:
    """Make it, with uv where it is, else with pip; what cannot be made leaves nothing behind."""
    print(f"installing requirements/{name}.txt", flush=True)
    target, lock = environment_folder(name), lock_of(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (_with_uv(target, lock) or _with_pip(target, lock)):
        shutil.rmtree(target, ignore_errors=True)


def _with_pip(target: Path, lock: Path) -> bool:
    pip: list[str | Path] = [target / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    return _done([sys.executable, "-m", "venv", "--clear", target]) and _done(
        [*pip, "install", "--require-hashes", "-r", lock]
    )


def _with_uv(target: Path, lock: Path) -> bool:
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
        lock,
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
