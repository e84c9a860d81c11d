"""Owns the applying of one mutation at a time to a copy of the checkout, and the running of tests against it there.

`tests.mutations` calls it. The checkout itself is never changed, and the copy is gone afterwards; where the process was
killed, the next one removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil
import pytest

__all__ = ["ROOT", "Mutation", "Outcome", "Verdict", "copied", "run_tests", "tried"]

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "unbroken-mutation-"
SECONDS_MAX = 1800
TEST_SECONDS_MAX = 120
"""For one test, which is less than the suite allows: many a mistake shows by waiting for ever."""
LEAVE_SECONDS_MAX = 30
SAID_MAX = 2000


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mistake that somebody could make, and the tests that must notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """Files, folders, or single tests as pytest names them (`tests/unit/test_log.py::test_it`)."""

    @property
    def occurrences(self) -> int:
        """How often the old text is there now; a mutation that can be applied has exactly one place."""
        return (ROOT / self.file).read_text(encoding="utf-8").count(self.old)


class Verdict(StrEnum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    NOT_APPLICABLE = "NOT APPLICABLE"
    BROKEN = "BROKEN"
    """The tests could not be run, did not end, or fail without the mutation too, which proves nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutation: `by` is the test that noticed, `why` what it said, or why there is no proof."""

    verdict: Verdict
    by: str
    why: str


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of everything that git knows or would take, with the checkout's own environment."""
    _remove_leftovers()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        for name in filter(None, listed.split("\0")):
            source, target = ROOT / name, Path(folder) / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        yield Path(folder)


def _remove_leftovers() -> None:
    """The copies of processes that were killed; the process is named in front of the random part."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """pytest's exit status in the copy (None: it did not end), and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"}
    options = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", f"--timeout={TEST_SECONDS_MAX}"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that it stops what its tests have started
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=LEAVE_SECONDS_MAX)
        process.kill()
        process.communicate()
        return None, "the tests did not end"
    return process.returncode, said


def tried(folder: Path, mutation: Mutation, *, first: str = "", sound: set[str] | None = None) -> Outcome:
    """Apply one mutation to the copy, run its tests, the one that is named `first` before all others, and take it back.

    The test that notices is run once more without the mutation: one that fails all the same has noticed nothing. Those that
    pass are `sound`, and are not asked again.
    """
    file = folder / mutation.file
    before = file.read_text(encoding="utf-8")
    if before.count(mutation.old) != 1:
        return Outcome(Verdict.NOT_APPLICABLE, "", f"the old text is there {before.count(mutation.old)} times")
    file.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        status, said = run_tests(folder, [first] if first else mutation.tests)
        if first and status != pytest.ExitCode.TESTS_FAILED:
            status, said = run_tests(folder, mutation.tests)
    finally:
        file.write_text(before, encoding="utf-8")
    if status == pytest.ExitCode.OK:
        return Outcome(Verdict.SURVIVED, "", said[-SAID_MAX:])
    summary = said.rpartition("short test summary info")[2]
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - (.*))?$", summary, re.MULTILINE)
    if status != pytest.ExitCode.TESTS_FAILED or failed is None:
        return Outcome(Verdict.BROKEN, "", said[-SAID_MAX:])
    by, why = failed[1], failed[2] or ""
    sound = set() if sound is None else sound
    if by not in sound:
        status, said = run_tests(folder, [by])
        if status != pytest.ExitCode.OK:
            return Outcome(Verdict.BROKEN, by, f"it fails without the mutation too:\n{said[-SAID_MAX:]}")
        sound.add(by)
    return Outcome(Verdict.KILLED, by, why)
