"""Owns fuzzing that is guided by coverage: atheris changes what has led to a new place in our code, and keeps it.

`python -m tests.fuzz --guided` calls it. It needs atheris, which is no requirement of the tests, and keeps every file that it
writes outside the checkout: in the folder it is given, or in one that is gone afterwards when nothing was found.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.running import EXAMPLE_SECONDS_MAX
from tests.support.mutating import ROOT

__all__ = ["INSTALL", "Told", "found", "guided", "missing", "told"]

INSTALL: Final = "pip install atheris==3.0.0"
MEMORY_MEGABYTES_MAX: Final = 2_048
START_SECONDS_MAX: Final = 300
SAID_MAX: Final = 3_000
_FOUND: Final = "found-"
_WRITTEN: Final = re.compile(r"Test unit written to (.*/(?:crash|timeout|oom)-[0-9a-f]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Told:
    """What libFuzzer says of a run: inputs tried, places of our code that they reached at first and at last."""

    inputs: int
    places_first: int
    places_last: int


def missing() -> str:
    """Why it cannot run here; nothing when it can."""
    if importlib.util.find_spec("atheris") is not None:
        return ""
    return f"guided fuzzing was not run: atheris is not installed: {INSTALL} (there are wheels for Linux and CPython)"


def guided(names: Sequence[str], *, seconds: float, number: int, folder: Path | None = None) -> int:
    """Fuzz each target for its share of the time, whatever the others do. 1 when something was found, or one did not run."""
    kept = Path(tempfile.mkdtemp(prefix="unbroken-fuzz-")) if folder is None else folder.resolve()
    share = max(1, round(seconds / len(names)))
    try:
        sound = [_fuzzed(name, share, number, kept) for name in names]
    finally:
        if folder is None and not any(kept.glob(f"{_FOUND}*/*")):
            shutil.rmtree(kept)
    return 0 if all(sound) else 1


def told(said: str) -> Told | None:
    """The numbers of a run from its output; None when it did not begin."""
    lines = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+)", said, re.MULTILINE)
    return Told(int(lines[-1][0]), int(lines[0][1]), int(lines[-1][1])) if lines else None


def found(said: str) -> list[Path]:
    """The files with inputs that a run ended with: one that failed, or took too long or too much memory."""
    return [Path(name) for name in _WRITTEN.findall(said)]


def _fuzzed(name: str, seconds: int, number: int, folder: Path) -> bool:
    """Whether the target was fuzzed for as long as was asked and nothing was found; what was, is printed."""
    corpus, defects = folder / name.replace(" ", "-"), folder / f"{_FOUND}{name.replace(' ', '-')}"
    for made in (corpus, defects):
        made.mkdir(parents=True, exist_ok=True)
    options = [
        *(f"-timeout={EXAMPLE_SECONDS_MAX}", f"-report_slow_units={EXAMPLE_SECONDS_MAX}"),
        *(f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MEGABYTES_MAX}"),
        f"-artifact_prefix={defects}/",
        "-entropic_scale_per_exec_time=1",  # of what is slow, less
    ]
    done = _python(["tests.fuzz.under_atheris", name, str(number), str(corpus), *options], seconds + START_SECONDS_MAX)
    numbers = told(done.stderr)
    if numbers is not None:
        reached = f"{numbers.places_first} -> {numbers.places_last} places"
        print(f"{name}: {numbers.inputs} inputs, {reached}", flush=True)
    artifacts = found(done.stderr)
    for artifact in artifacts:
        print(f"{name}: DEFECT. again: python -m {shlex.join(again := _again(name, artifact))}", flush=True)
        print(_last(_python(again, START_SECONDS_MAX).stderr), flush=True)
    if not artifacts and (done.returncode != 0 or numbers is None):
        print(f"{name}: NOT FUZZED (exit {done.returncode})\n{_last(done.stderr)}", flush=True)
    return not artifacts and done.returncode == 0 and numbers is not None


def _again(name: str, artifact: Path) -> list[str]:
    return ["tests.fuzz", "--target", name, "--input", str(artifact)]


def _python(arguments: Sequence[str], seconds: int) -> subprocess.CompletedProcess[str]:
    """One of our modules as a process, with what it said."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


def _last(said: str) -> str:
    return said[-SAID_MAX:].rstrip()
