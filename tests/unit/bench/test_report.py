"""How figures become comparisons, a table and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from unbroken.bench.client import Sample
from unbroken.bench.machine import Missing
from unbroken.bench.report import Measured, Report, compare, compare_rates, middle


def sample(messages: int = 1_000, seconds: float = 0.5) -> Sample:
    return Sample(
        client="c",
        seconds=seconds,
        messages=messages,
        bytes=0,
        sent=messages,
        acked=messages,
        p50_us=200,
        p99_us=900,
        client_cpu_seconds=0.1,
        cpu_ns=[200_000_000, 50_000_000],
        rss_before_kb=0,
        rss_peak_kb=0,
        rss_kb=[],
        faults=0,
        fault="",
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "target", "met"),
    [(50.0, 2.0, ">= 25", True), (49.0, 2.0, ">= 25", False), (3.0, 1.0, "<= 3", True), (3.1, 1.0, "<= 3", False)],
)
def test_a_target_is_of_the_ratio(ours: float, theirs: float, target: str, met: bool) -> None:
    entry = compare(1, "speed (messages/s)", ours, "peer", theirs, target)
    assert entry is not None
    assert (entry.measure, entry.unit) == ("speed", "messages/s")
    assert entry.ratio == ours / theirs
    assert entry.met is met


def test_an_absolute_target_is_of_the_figure_itself() -> None:
    entry = compare(13, "memory (KB)", 4.0, "absolute", None, "<= 5")
    assert entry is not None
    assert entry.met is True
    assert entry.ratio is None


def test_without_a_yardstick_there_is_a_figure_and_no_verdict() -> None:
    entry = compare(5, "fan-out (deliveries/s)", 10.0, "Node ws", None, ">= 10")
    assert entry is not None
    assert entry.met is None
    assert compare(5, "fan-out (deliveries/s)", None, "Node ws", 3.0, ">= 10") is None


def test_rates_and_costs_of_a_sample() -> None:
    found = sample()
    assert found.rate == 2_000
    assert found.cpu_percent == 50
    assert found.client_busy == 0.2
    assert middle([]) is None
    assert middle([3.0, 1.0, 2.0]) == 2.0


def test_the_processor_s_ratio_tells_what_a_busy_machine_hides() -> None:
    theirs = [sample(messages=100)]
    entry = compare_rates(5, "fan-out (deliveries/s)", [sample(), sample()], ("peer", theirs), ">= 10")
    assert entry is not None
    assert (entry.ours, entry.theirs, entry.ratio, entry.processor_ratio) == (2_000, 200, 10, 10)
    alone = compare_rates(5, "fan-out (deliveries/s)", [sample()], ("peer", ()), ">= 10")
    assert alone is not None
    assert (alone.theirs, alone.processor_ratio) == (None, None)
    assert compare_rates(5, "fan-out (deliveries/s)", [], ("peer", theirs), ">= 10") is None


def test_the_report_names_what_was_missing_and_what_failed(tmp_path: Path) -> None:
    entry = compare(1, "speed (messages/s)", 12_345.0, "peer", 100.0, ">= 25")
    assert entry is not None
    report = Report(
        machine={"cores": "2"},
        missing=(Missing("redis-server", "apt install redis-server"),),
        comparisons=(entry,),
        measured=(Measured("pair", "ours", (sample(), sample())),),
        failures=("pair: ours: it fell over",),
    )
    console = Console(record=True, width=150)
    report.print_to(console)
    text = console.export_text()
    for expected in ("12,345", "123.45", "yes", "apt install redis-server", "it fell over", "250", "50 %"):
        assert expected in text
    path = tmp_path / "report.json"
    report.write_json(path)
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["comparisons"][0]["ratio"] == 123.45
    assert read["measured"][0]["samples"][0]["cpu_ns"] == [200_000_000, 50_000_000]
