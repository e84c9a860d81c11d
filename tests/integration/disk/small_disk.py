"""A disk that is really small: a tmpfs of a few megabytes where that can be mounted, else a bound on the database's pages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SmallDisk", "small_disk"]


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """`real` says whether it is a file system of its own; else only the database is bounded, to `size_bytes`."""

    path: Path
    size_bytes: int
    real: bool

    def grow(self, size_bytes: int) -> None:
        """Make a real one larger while it is in use."""
        assert self.real
        subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(self.path)], check=True, timeout=60)


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A disk mounted at `path`; says on standard output when it is not a real one."""
    path.mkdir()
    mounted = _mounted(path, size_bytes)
    if not mounted:
        sys.stdout.write(
            "not run: a real full disk (a tmpfs cannot be mounted here); the database is bounded instead\n"
        )
    try:
        yield SmallDisk(path, size_bytes, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=True, timeout=60)


def _mounted(path: Path, size_bytes: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except FileNotFoundError:
        return False
