"""Another process that uses a database, with Python's own sqlite3, which is another build than the store's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LOCKER", "program"]

LOCKER = """
import sqlite3, sys
locker = sqlite3.connect(sys.argv[1], isolation_level=None)
locker.execute("BEGIN {kind}")
print("locked", flush=True)
sys.stdin.readline()
locker.execute("ROLLBACK")
print("free", flush=True)
"""
"""Holds the write lock until it gets a line."""


@contextmanager
def program(source: str, path: Path) -> Iterator[Callable[[str], str]]:
    """Run it. Calling sends a line, unless that is empty, and gets one."""
    child = subprocess.Popen(
        [sys.executable, "-c", source, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    sending, receiving = child.stdin, child.stdout

    def ask(line: str) -> str:
        if line:
            sending.write(line + "\n")
            sending.flush()
        return receiving.readline().strip()

    with child:
        try:
            yield ask
        finally:
            child.kill()
