"""The command as a whole, with tiny counts: it runs every scenario of ours, prints the table and writes JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import unbroken
import unbroken.bench
from unbroken.bench import ROWS, Scale, main, measure
from unbroken.bench.machine import Tools, find_tools

TINY = Scale(seconds=0.1, rounds=1, streams=2, viewers=2, replay_bytes=8 * 65_536, connections=10, settle_seconds=0.05)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No yardstick but the floor, and a cache of the test's own: what there is on the machine makes no difference."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")


def test_every_row_has_a_scenario_and_every_scenario_runs() -> None:
    report = measure(frozenset(ROWS), replace(TINY, baseline=Path(unbroken.__file__).parents[2]))
    assert report.failures == ()
    assert {entry.row for entry in report.comparisons} == {1, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15}
    assert {missing.name for missing in report.missing} == {"a C compiler on Linux", "Node", "redis-server"}
    assert all(entry.theirs is None for entry in report.comparisons if "redis" in entry.yardstick)


def test_the_command_measures_the_rows_asked_for_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(unbroken.bench, "Scale", lambda **_: replace(TINY))
    path = tmp_path / "bench.json"
    assert main(rows=[5], json_file=path) == 0
    assert "fan-out 1 to 2" in capsys.readouterr().out
    assert {entry["row"] for entry in json.loads(path.read_text(encoding="utf-8"))["comparisons"]} == {5}


def test_a_row_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\[2\]"):
        main(rows=[2, 4])


def test_what_is_missing_is_named_with_its_cure(tmp_path: Path) -> None:
    tools = find_tools(tmp_path)
    assert tools == Tools(None, None, None, None, tools.missing)
    assert all(missing.cure for missing in tools.missing)
