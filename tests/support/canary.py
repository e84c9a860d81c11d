"""The canary search: no test of the suite may leave a secret in a log, in a server's output, or in a log file.

A pytest plugin, loaded by tests/conftest.py. Tests plant secrets with `plant`; the token of each server that `ServerProcess`
starts is planted by itself, and what has the shape of a credential of ours counts wherever it is. After each phase of a test
its captured log and error output, what its servers have printed, and the log files below its `tmp_path` are searched; a hit
fails that test. Under pytest-xdist each worker plants and searches by itself: with `--dist=loadfile` a file's tests, its
servers and its fixtures are all in one worker, so that nothing is planted in one and printed in another.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

__all__ = ["hits", "plant", "printed"]

CHARACTERS_MIN: Final = 12
"""Shorter secrets of tests are words, which stand elsewhere too."""
LOG_FILES: Final = ("*.log", "*.jsonl")
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
OWN: Final = re.compile(
    r"\bub[kl]_[A-Za-z0-9_-]{20,}|\bticket\.[A-Za-z0-9_-]{40,}|\beyJ[\w-]{16,}\.eyJ[\w-]{8,}\.[\w-]{8,}|\?(?:token|ticket)=(?!\[)"
)
"""Tokens, links, tickets and JWTs, and queries that hold one."""
_TOLD: Final = pytest.StashKey[bool]()
"""Whether this test has failed for it already: later phases have what earlier ones captured too."""
_planted: set[str] = set()
_printed: list[str] = []


def plant(secret: str | None = None) -> str:
    """A secret that must be in no log from now on: the given one, or a fresh one."""
    secret = secret or f"canary-{uuid4().hex}"
    if len(secret) >= CHARACTERS_MIN:
        _planted.add(secret)
    return secret


def printed(text: str) -> None:
    """A server has printed this."""
    _printed.append(text)


def hits(text: str) -> Iterator[str]:
    """What is wrong with a text that may hold no secret; the secret itself is not told."""
    for secret in _planted:
        if secret in text:
            yield f"a planted secret, {len(secret)} characters, in: {_line(text, text.index(secret))}"
    if found := OWN.search(text):
        yield f"something like a credential in: {_line(text, found.start())}"


def _line(text: str, place: int) -> str:
    """The beginning of the line, up to the secret."""
    return repr(text[text.rfind("\n", 0, place) + 1 : place][-200:])


def _of_files(directory: Path) -> Iterator[str]:
    for pattern in LOG_FILES:
        for path in directory.rglob(pattern):
            if path.is_file() and path.stat().st_size <= FILE_BYTES_MAX:
                yield path.read_text(encoding="utf-8", errors="replace")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a phase that has passed and left a secret somewhere into a failure."""
    report = yield
    texts = [report.caplog, report.capstderr, *_printed]
    if call.when == "teardown":
        _printed.clear()
        directory = getattr(item, "funcargs", {}).get("tmp_path")
        if isinstance(directory, Path):
            texts += _of_files(directory)
    found = [hit for text in texts for hit in hits(text)]
    if found and report.passed and not item.stash.get(_TOLD, False):
        item.stash[_TOLD] = True
        report.outcome = "failed"
        report.longrepr = "the canary search found " + "; ".join(found)
    return report
