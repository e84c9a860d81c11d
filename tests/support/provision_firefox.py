"""Owns how the tests come by a Firefox: the system's own, or Debian's packages, unpacked into the cache folder.

Called by `provision`, which may fetch, and by the `firefox_path` fixture, which only looks. It installs nothing. Without apt
there is none, and the tests that want it say so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.provision_chromium import cache_folder
from tests.support.provision_debian import run_apt

__all__ = ["Firefox", "find_firefox", "provide_firefox"]

PACKAGE = "firefox-esr"
START_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Firefox:
    """A Firefox that starts."""

    path: Path
    version: str


def find_firefox() -> Firefox | None:
    """The one that `UNBROKEN_FIREFOX` names, the one on PATH, else the unpacked one."""
    named = os.environ.get("UNBROKEN_FIREFOX")
    known = named or shutil.which(PACKAGE) or shutil.which("firefox")
    for path in (Path(known) if known else None, _launcher()):
        if path is not None and path.is_file() and (version := _version(path)):
            return Firefox(path, version)
    return None


def provide_firefox() -> Firefox | None:
    """`find_firefox`, else unpack it with what it needs and this system lacks, where apt can."""
    found = find_firefox()
    if found is not None or platform.system() != "Linux" or shutil.which("apt-get") is None:
        return found
    print(f"unpacking {PACKAGE}", flush=True)
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archives = Path(scratch)
        (archives / "partial").mkdir()
        options = ["-y", "-q", "--download-only", "--no-install-recommends", "-o", f"Dir::Cache::archives={archives}"]
        run_apt(["apt-get", "install", *options, PACKAGE], archives)
        for archive in archives.glob("*.deb"):
            run_apt(["dpkg-deb", "--extract", str(archive), str(folder)], archives)
    program = folder / "usr" / "lib" / PACKAGE / PACKAGE
    if not program.is_file():
        return None
    libraries = ":".join(str(path) for path in folder.glob("usr/lib/*-linux-gnu"))
    launcher = _launcher()
    launcher.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{program}" "$@"\n')
    launcher.chmod(0o755)
    return find_firefox()


def _folder() -> Path:
    return cache_folder() / "debian-firefox"


def _launcher() -> Path:
    """Starts the unpacked one with its libraries."""
    return _folder() / "firefox.sh"


def _version(program: Path) -> str | None:
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split()[-1] if done.returncode == 0 and done.stdout.strip() else None
