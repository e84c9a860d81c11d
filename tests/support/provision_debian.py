"""Owns how the tests come by programs that neither pip nor npm has: HAProxy and libfaketime, out of Debian's packages.

Called by `provision`, which may fetch, and by fixtures, which only look. It unpacks into the cache folder and installs
nothing: no service is started and nothing of the system is changed. Without apt these pieces are not to be had, and the
tests that want them say so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.provision_chromium import cache_folder

__all__ = ["Haproxy", "find_faketime", "find_haproxy", "provide_debian", "run_apt"]

FETCH_SECONDS_MAX = 120
HAPROXY_PACKAGES = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
FAKETIME_PACKAGES = ("libfaketime",)
FAKETIME = "libfaketimeMT.so.1"


@dataclass(frozen=True, slots=True)
class Haproxy:
    """An HAProxy that starts, with the environment that it needs for it."""

    path: Path
    environment: Mapping[str, str]
    version: str


def find_haproxy() -> Haproxy | None:
    """The one on PATH (or in the system's own folders), else the unpacked one."""
    known = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    unpacked = _folder("haproxy")
    libraries = ":".join(str(path) for path in unpacked.glob("usr/lib/*-linux-gnu"))
    for path, environment in (
        (Path(known) if known else None, {}),
        (unpacked / "usr" / "sbin" / "haproxy", {"LD_LIBRARY_PATH": libraries}),
    ):
        if path is not None and (version := _version(path, environment)):
            return Haproxy(path, environment, version)
    return None


def find_faketime() -> Path | None:
    """The library that gives a process another clock, of the system or unpacked."""
    if platform.system() != "Linux":
        return None
    for root in (Path("/"), _folder("faketime")):
        for path in root.glob(f"usr/lib/*-linux-gnu/faketime/{FAKETIME}"):
            return path
    return None


def provide_debian() -> None:
    """Unpack what is not there, where apt can."""
    if find_haproxy() is None:
        _unpack("haproxy", HAPROXY_PACKAGES)
    if find_faketime() is None:
        _unpack("faketime", FAKETIME_PACKAGES)


def _folder(name: str) -> Path:
    return cache_folder() / f"debian-{name}"


def _version(program: Path, environment: Mapping[str, str]) -> str | None:
    try:
        done = subprocess.run(
            [program, "-v"], env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[2] if done.returncode == 0 and len(words) > 2 else None


def _unpack(name: str, packages: Sequence[str]) -> None:
    """Download packages by apt and extract them; a package that this system does not have is left out."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return
    folder = _folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for package in packages:
            run_apt(["apt-get", "download", "-q", package], Path(scratch))
        for archive in Path(scratch).glob("*.deb"):
            run_apt(["dpkg-deb", "--extract", str(archive), str(folder)], Path(scratch))


def run_apt(command: Sequence[str], folder: Path) -> None:
    """One step of fetching or unpacking; what it could not do is seen by what is missing afterwards."""
    try:
        subprocess.run(command, cwd=folder, capture_output=True, timeout=FETCH_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return
