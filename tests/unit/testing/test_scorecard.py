"""A scorecard says what was judged, and nothing that a server could have smuggled in."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from xml.etree import ElementTree

from unbroken.testing import History, Rule
from unbroken.testing.survival import ASPECTS, Cell, Outcome, Row, Scorecard, scenarios
from unbroken.testing.survival.adapter import Complete, Delivery
from unbroken.testing.survival.recording import Recording
from unbroken.testing.survival.reports import as_html, as_json, as_junit
from unbroken.testing.survival.scorecard import judged, whole

HOSTILE = "<script>alert(1)</script>\x00\x1b[31m&\"'"


def card(*rows: Row) -> Scorecard:
    return Scorecard(f"http://h/{HOSTILE}", HOSTILE, 7, "0.1", list(rows))


def row(**cells: Cell) -> Row:
    return Row(scenarios()[0], dict.fromkeys(ASPECTS, Cell(Outcome.PASS)) | cells, notes=(HOSTILE,))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_every_rule_has_exactly_one_column() -> None:
    judged_rules = [rule for rules in ASPECTS.values() for rule in rules]
    assert sorted(judged_rules) == sorted(set(Rule) - {Rule.FRESH_READ})  # the kit makes no bounded reads in mid-stream


def test_the_worst_cell_is_the_rows_outcome_and_the_worst_row_the_cards() -> None:
    passed = row()
    doubtful = row(end=Cell(Outcome.INCONCLUSIVE))
    failed = row(end=Cell(Outcome.FAIL, "one_end", "two ends"), once=Cell(Outcome.INCONCLUSIVE))
    unasked = whole(scenarios()[0], Outcome.NOT_CLAIMED, "why")
    assert [each.outcome for each in (passed, doubtful, failed, unasked)] == [
        Outcome.PASS,
        Outcome.INCONCLUSIVE,
        Outcome.FAIL,
        Outcome.NOT_CLAIMED,
    ]
    assert card(passed, unasked).outcome is Outcome.PASS
    assert card(passed, doubtful).outcome is Outcome.INCONCLUSIVE
    assert card(passed, doubtful, failed).outcome is Outcome.FAIL
    assert card().outcome is Outcome.NOT_RUN
    assert failed.broken == ["one_end"]


def test_what_a_server_said_stays_text_on_the_page() -> None:
    page = as_html(card(row(end=Cell(Outcome.FAIL, "one_end", HOSTILE))))
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.found
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page


def test_what_a_server_said_does_not_break_the_papers_for_machines() -> None:
    failed = row(end=Cell(Outcome.FAIL, "one_end", HOSTILE), once=Cell(Outcome.INCONCLUSIVE))
    suite = ElementTree.fromstring(as_junit(card(failed, whole(scenarios()[1], Outcome.NOT_RUN, HOSTILE))))
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["14", "1", "1", "7"]
    assert json.loads(as_json(card(failed)))["rows"][0]["cells"]["end"]["evidence"] == HOSTILE


def test_positions_that_a_server_does_not_tell_come_from_the_final_read() -> None:
    recording = Recording(lambda: 0.0)
    history = recording.history
    for name in ("a", "b", "c"):
        history.invoke("p", name, f"{name}:x")
        history.ack(name)
    recording.open("v", None)
    recording.deliver("v", Delivery("a:x", "cursor-a"))
    recording.open("v", Delivery("a:x", "cursor-a"))
    recording.deliver("v", Delivery("c:x", "cursor-c"))
    history.end("v", "completed")
    finished = recording.finished(Complete((Delivery("a:x"), Delivery("b:x"), Delivery("c:x"))), "completed")
    report = finished.check()
    assert not recording.told
    assert report.findings[Rule.DENSE].anomaly == "gap"
    assert report.findings[Rule.DENSE].witness == {"observer": "v", "position": 2, "before": 3}
    assert judged(report)["unbroken"].rule == "dense"


def test_a_message_that_is_gone_at_the_end_was_seen_then_lost() -> None:
    recording = Recording(lambda: 0.0)
    recording.history.invoke("p", "a", "a:x")
    recording.open("v", None)
    recording.deliver("v", Delivery("a:x"))
    report = recording.finished(Complete(()), "").check()
    assert report.findings[Rule.SEEN_KEPT].anomaly == "seen then lost"
    assert isinstance(recording.history, History)
