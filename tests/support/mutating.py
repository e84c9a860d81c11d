"""Owns the applying of one mutation at a time to a copy of the checkout, and the running of tests against it there.

`tests.mutations` calls it. The checkout itself is never changed, and the copy is gone afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

__all__ = ["ROOT", "Mutation", "Verdict", "copied", "run_tests", "tried"]

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 600


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mistake that somebody could make, and the tests that must notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def occurrences(self) -> int:
        """How often the old text is there now; a mutation that can be applied has exactly one place."""
        return (ROOT / self.file).read_text(encoding="utf-8").count(self.old)


class Verdict(StrEnum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    NOT_APPLICABLE = "NOT APPLICABLE"
    BROKEN = "BROKEN"
    """The tests could not be run at all, which proves nothing."""


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of everything that git knows or would take, with the checkout's own environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with tempfile.TemporaryDirectory(prefix="unbroken-mutation-") as folder:
        for name in filter(None, listed.split("\0")):
            source, target = ROOT / name, Path(folder) / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        yield Path(folder)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """pytest's exit status in the copy (None: it hung), and the end of what it said."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, "the tests did not end"
    return process.returncode, said[-1500:]


def tried(folder: Path, mutation: Mutation) -> tuple[Verdict, str]:
    """Apply one mutation to the copy, run its tests, and take it back."""
    file = folder / mutation.file
    before = file.read_text(encoding="utf-8")
    if before.count(mutation.old) != 1:
        return Verdict.NOT_APPLICABLE, f"{mutation.file} has the old text {before.count(mutation.old)} times"
    file.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        status, said = run_tests(folder, mutation.tests)
    finally:
        file.write_text(before, encoding="utf-8")
    match status:
        case pytest.ExitCode.OK:
            return Verdict.SURVIVED, said
        case None | pytest.ExitCode.TESTS_FAILED:
            return Verdict.KILLED, said
        case _:
            return Verdict.BROKEN, said
