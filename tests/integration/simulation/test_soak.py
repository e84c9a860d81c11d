"""The soak command: a real server killed and cut off, judged in rounds, ending by itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from unbroken.bench.soak import SoakReport


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unbroken", "soak", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.scenario("LOAD-003")
@pytest.mark.timeout(400)
def test_a_few_seconds_of_soaking_lose_nothing_and_end_by_themselves(tmp_path: Path) -> None:
    done = soak("--seconds", "3", "--streams", "3", "--seed", "5", "--directory", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) rounds, (\d+) streams, (\d+) acknowledged, (\d+) delivered", done.stdout)
    assert found is not None, done.stdout
    rounds, streams, acknowledged, delivered = map(int, found.groups())
    assert rounds >= 1
    assert streams == 3 * rounds
    assert acknowledged >= 150 * streams
    assert delivered == 2 * acknowledged, "two viewers of every stream, once each"
    bitten = re.search(r"faults that bit: cut x(\d+), kill -9 x(\d+)", done.stdout)
    assert bitten is not None, done.stdout
    assert int(bitten[2]) == rounds
    assert "seed 5" in done.stdout
    assert [path.name for path in tmp_path.glob("*.db")] == ["demo.db"]


def test_a_soak_without_faults_or_with_a_failure_has_not_passed() -> None:
    bitten = Counter({"kill -9": 1, "cut": 3})
    assert SoakReport(1, faults=bitten).passed
    assert not SoakReport(1, faults=Counter({"cut": 3})).passed
    assert "inconclusive" in str(SoakReport(1))
    failed = SoakReport(1, faults=bitten, failures=["a message is missing"])
    assert not failed.passed
    assert "soak: fail" in str(failed)


@pytest.mark.parametrize("arguments", [("--seconds", "0"), ("--streams", "0")])
def test_senseless_options_are_refused(arguments: tuple[str, str]) -> None:
    assert soak(*arguments).returncode == 2
