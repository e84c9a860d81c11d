"""The canary search fails a test that leaves a secret in a log, in a server's output or in a log file, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.canary import hits

SUITE = """
import logging
import pytest
from tests.support.canary import plant, printed

SECRET = plant("-".join(["planted", "in", "a", "test"]))

def test_clean():
    logging.getLogger("work").warning("nothing")

def test_logged():
    logging.getLogger("work").warning("it is %s", SECRET)

def test_printed():
    printed(f"server: {SECRET}")

def test_in_a_file(tmp_path):
    (tmp_path / "audit.jsonl").write_text(SECRET)

def test_shape():
    logging.getLogger("work").warning("GET /v1/ws?tic" + "ket=abc")

def test_after():
    logging.getLogger("work").warning("nothing")
"""


def test_each_place_is_searched(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(SUITE, encoding="utf-8")
    root = Path(__file__).resolve().parents[3]
    options = [
        "-q",
        "-p",
        "tests.support.canary",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
    ]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    for name in ("test_logged", "test_printed", "test_in_a_file", "test_shape"):
        assert sum(f"::{name} " in f"{line} " for line in lines) == 1, done.stdout
    assert len(lines) == 4
    assert "the canary search found" in done.stdout


def test_what_is_hidden_is_no_hit() -> None:
    assert list(hits("Authorization: [hidden]; ticket.[hidden]; GET /v1/ws?[hidden]; ?token=[hidden]")) == []
    assert len(list(hits("ub" + "k_" + "a1" * 20))) == 1
