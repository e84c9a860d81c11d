"""The history checker names every anomaly that it is shown, and passes what is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.testing import History, HistoryError, InconclusiveError, Rule, Verdict
from unbroken.testing.history_naive import naive_verdicts

COUNT = 8


def sound(count: int = COUNT, *, observers: int = 2, end: bool = True) -> History:
    """One producer, all acknowledged, everybody got everything, with one reconnect each."""
    history = History()
    for number in range(1, count + 1):
        history.invoke("p", f"m{number}", f"payload {number}")
        history.ack(f"m{number}", number)
    for name in [f"o{number}" for number in range(observers)]:
        history.open(name, 0)
        for number in range(1, count + 1):
            history.deliver(name, number, f"m{number}", f"payload {number}")
            if number == count // 2:
                history.open(name, number)
        if end:
            history.end(name, "completed")
    return history


def complete(history: History, count: int = COUNT, *, state: str = "completed") -> History:
    history.final([(number, f"m{number}", f"payload {number}") for number in range(1, count + 1)], state=state)
    return history


def test_a_sound_history_passes_every_rule_that_it_claims() -> None:
    report = complete(sound()).check().raise_if_failed()
    assert {finding.verdict for rule, finding in report.findings.items() if rule is not Rule.FRESH_READ} == {
        Verdict.PASS
    }
    assert report.findings[Rule.FRESH_READ].verdict is Verdict.NOT_CLAIMED
    assert (report.delivered, report.acknowledged) == (2 * COUNT, COUNT)


def phantom(history: History) -> None:
    history.deliver("late", 1, "never sent")


def corrupt(history: History) -> None:
    history.deliver("late", 1, "m1", "payload of another")


def aborted_read(history: History) -> None:
    history.fail("m3")


def divergent(history: History) -> None:
    history.deliver("late", 1, "m1", "payload 1")
    history.deliver("late", 2, "m3", "payload 3")


def stored_twice(history: History) -> None:
    history.open("late", COUNT)
    history.deliver("late", COUNT + 1, "m1", "payload 1")


def gap(history: History) -> None:
    history.deliver("late", 1, "m1", "payload 1")
    history.deliver("late", 3, "m3", "payload 3")


def duplicate(history: History) -> None:
    for _ in range(2):
        history.deliver("late", 1, "m1", "payload 1")


def reorder(history: History) -> None:
    for number in (1, 3, 2):
        history.deliver("late", number, f"m{number}", f"payload {number}")


def duplicate_after_reconnect(history: History) -> None:
    for number in (1, 2):
        history.deliver("late", number, f"m{number}", f"payload {number}")
    history.open("late", 1)
    history.deliver("late", 2, "m2", "payload 2")


def cursor_ahead(history: History) -> None:
    history.deliver("late", 1, "m1", "payload 1")
    history.open("late", 2)


def two_ends(history: History) -> None:
    history.end("o0", "completed")


def different_ends(history: History) -> None:
    history.open("late", COUNT)
    history.end("late", "failed")


def delivery_after_the_end(history: History) -> None:
    history.deliver("o0", COUNT, f"m{COUNT}", f"payload {COUNT}")


def ended_early(history: History) -> None:
    history.open("late", 0)
    history.deliver("late", 1, "m1", "payload 1")
    history.end("late", "completed")


def stuck(history: History) -> None:
    history.open("late", 0)
    history.deliver("late", 1, "m1", "payload 1")


def stale_read(history: History) -> None:
    history.read("late")(COUNT - 1)


PLANTED: list[tuple[Callable[[History], None], Rule, str]] = [
    (phantom, Rule.KNOWN, "phantom"),
    (corrupt, Rule.KNOWN, "corrupt"),
    (aborted_read, Rule.NOT_FAILED, "aborted read"),
    (divergent, Rule.ONE_PLACE, "divergent"),
    (stored_twice, Rule.ONE_PLACE, "stored twice"),
    (gap, Rule.DENSE, "gap"),
    (duplicate, Rule.DENSE, "duplicate"),
    (reorder, Rule.DENSE, "reorder"),
    (duplicate_after_reconnect, Rule.DENSE, "duplicate"),
    (cursor_ahead, Rule.CURSOR, "cursor ahead"),
    (two_ends, Rule.ONE_END, "two ends"),
    (different_ends, Rule.ONE_END, "different ends"),
    (delivery_after_the_end, Rule.ONE_END, "delivery after the end"),
    (ended_early, Rule.ONE_END, "ended early"),
    (stuck, Rule.LIVE, "stuck"),
    (stale_read, Rule.FRESH_READ, "stale read"),
]


@pytest.mark.parametrize(("plant", "rule", "anomaly"), PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED])
def test_a_planted_anomaly_of_an_observer_is_named(plant: Callable[[History], None], rule: Rule, anomaly: str) -> None:
    history = sound()
    plant(history)
    report = complete(history).check()
    assert (report.findings[rule].verdict, report.findings[rule].anomaly) == (Verdict.FAIL, anomaly)
    assert report.findings[rule].witness
    assert naive_verdicts(history.events)[rule] is Verdict.FAIL
    with pytest.raises(HistoryError, match=anomaly):
        report.raise_if_failed()


def final_of(numbers: list[int], *, moved: int = 0) -> History:
    """A sound history whose final read holds these messages at places counted from 1 + `moved`."""
    history = sound()
    history.final(
        [(place + moved, f"m{number}", f"payload {number}") for place, number in enumerate(numbers, 1)],
        state="completed",
    )
    return history


@pytest.mark.parametrize(
    ("numbers", "moved", "rule", "anomaly"),
    [
        ([1, 2, 3, 4, 5, 6, 7], 0, Rule.ACKED_KEPT, "acked lost"),
        ([1, 2, 3, 4, 5, 6, 7], 0, Rule.SEEN_KEPT, "seen then lost"),
        ([1, 2, 3, 4, 5, 6, 7, 8], 1, Rule.ACKED_KEPT, "ack position"),
        ([1, 2, 3, 4, 5, 6, 7, 8, 8], 0, Rule.ONCE, "double append"),
        ([2, 1, 3, 4, 5, 6, 7, 8], 0, Rule.PRODUCER_ORDER, "producer order"),
        ([2, 1, 3, 4, 5, 6, 7, 8], 0, Rule.REAL_TIME, "realtime"),
    ],
)
def test_a_planted_anomaly_of_the_log_is_named(numbers: list[int], moved: int, rule: Rule, anomaly: str) -> None:
    history = final_of(numbers, moved=moved)
    report = history.check()
    assert (report.findings[rule].verdict, report.findings[rule].anomaly) == (Verdict.FAIL, anomaly)
    assert naive_verdicts(history.events)[rule] is Verdict.FAIL


@pytest.mark.parametrize("places", [[1, 2, 3, 4, 5, 6, 7, 8, 10], [2], []], ids=str)
def test_a_hole_in_the_last_read_is_named_though_nobody_was_given_what_is_missing(places: list[int]) -> None:
    """Above the eight that are known, or with nobody who knows of any, only density tells."""
    history = sound() if len(places) > 1 else History()
    for number in (9, 10):
        history.invoke("p", f"m{number}", f"payload {number}")
        history.unknown(f"m{number}")
    names = [9, 10] if len(places) < 9 else [*range(1, 10), 10]
    history.final([(place, f"m{number}", f"payload {number}") for place, number in zip(places, names, strict=False)])
    verdict = Verdict.FAIL if places else Verdict.INCONCLUSIVE
    finding = history.check().findings[Rule.DENSE]
    assert finding.verdict is verdict
    assert naive_verdicts(history.events)[Rule.DENSE] is verdict
    assert not places or (finding.anomaly, finding.witness["observer"]) == ("gap", "final")


def test_who_began_behind_the_end_of_the_stream_is_named() -> None:
    history = sound()
    history.open("late", COUNT)
    history.open("later", COUNT + 1)
    assert history.check().findings[Rule.CURSOR].verdict is Verdict.PASS, "where the end is, nobody has said yet"
    complete(history)
    finding = history.check().findings[Rule.CURSOR]
    assert (finding.verdict, finding.witness["observer"], finding.count) == (Verdict.FAIL, "later", 1)
    assert naive_verdicts(history.events)[Rule.CURSOR] is Verdict.FAIL


def test_real_time_order_holds_between_producers() -> None:
    history = History()
    history.invoke("p", "a")
    history.ack("a", 2)
    history.invoke("q", "b")
    history.ack("b", 1)
    history.final([(1, "b", ""), (2, "a", "")])
    findings = history.check(messages_min=0).findings
    assert findings[Rule.REAL_TIME].anomaly == "realtime"
    assert findings[Rule.PRODUCER_ORDER].verdict is Verdict.PASS


def test_concurrent_appends_may_be_stored_in_any_order() -> None:
    history = History()
    for producer, name in (("p", "a"), ("q", "b")):
        history.invoke(producer, name)
    history.ack("a", 2)
    history.ack("b", 1)
    history.final([(1, "b", ""), (2, "a", "")])
    assert history.check(messages_min=0).findings[Rule.REAL_TIME].verdict is Verdict.PASS


def test_an_unknown_outcome_may_be_there_or_not() -> None:
    for stored in (False, True):
        history = sound()
        history.invoke("p", "m9", "payload 9")
        history.unknown("m9")
        for name in ("o0", "o1"):
            history.leave(name)
        complete(history, COUNT + stored, state="")
        assert history.check().findings[Rule.ACKED_KEPT].verdict is Verdict.PASS


def test_trimmed_messages_are_not_missed() -> None:
    history = sound()
    history.trim(4)
    history.final([(number, f"m{number}", f"payload {number}") for number in range(4, COUNT + 1)], state="completed")
    history.check().raise_if_failed()


def test_a_retry_that_is_acknowledged_at_another_place_is_named() -> None:
    history = History()
    history.invoke("p", "m1")
    history.ack("m1", 1)
    history.ack("m1", 7)
    history.deliver("o", 1, "m1")
    history.final([(1, "m1", "")])
    finding = history.check().findings[Rule.ACKED_KEPT]
    assert (finding.anomaly, finding.witness["position"]) == ("ack position", 7)
    assert naive_verdicts(history.events)[Rule.ACKED_KEPT] is Verdict.FAIL


def test_two_messages_at_one_place_at_the_end_are_named_though_nobody_was_given_them() -> None:
    history = History()
    for name in ("m1", "m2"):
        history.invoke("p", name)
        history.ack(name, 1)
    history.final([(1, "m1", ""), (1, "m2", "")])
    assert history.check(messages_min=0).anomalies == ["divergent"]
    assert naive_verdicts(history.events, messages_min=0)[Rule.ONE_PLACE] is Verdict.FAIL


def test_the_end_that_comes_too_late_after_healing_is_named() -> None:
    now = [0.0]
    history = History(now=lambda: now[0])
    history.invoke("p", "m1")
    history.heal()
    history.open("o", 0)
    history.deliver("o", 1, "m1")
    now[0] = 30.0
    history.end("o", "completed")
    report = history.check(liveness_seconds=10)
    assert report.findings[Rule.LIVE].anomaly == "too late"
    assert report.lag_seconds == 30.0
    assert history.check(liveness_seconds=60).findings[Rule.LIVE].verdict is Verdict.PASS


def test_a_fault_that_never_bit_makes_the_run_inconclusive() -> None:
    history = complete(sound())
    history.fault("ResetPeer", 0)
    assert history.check().verdict is Verdict.INCONCLUSIVE
    with pytest.raises(InconclusiveError, match="ResetPeer never bit"):
        history.check().raise_if_failed()
    history.fault("ResetPeer", 2)
    assert history.check().raise_if_failed().faults == {"ResetPeer": 2}


def test_too_few_messages_prove_nothing() -> None:
    assert complete(sound()).check(messages_min=100).verdict is Verdict.INCONCLUSIVE
    assert History().check().verdict is Verdict.INCONCLUSIVE


def test_without_a_final_read_loss_is_not_judged() -> None:
    report = sound().check()
    assert report.findings[Rule.ACKED_KEPT].verdict is Verdict.INCONCLUSIVE
    assert report.verdict is Verdict.INCONCLUSIVE


def test_a_rule_that_is_not_claimed_is_not_judged() -> None:
    history = complete(sound(end=False), state="")
    assert history.check().verdict is Verdict.INCONCLUSIVE
    history.check(without=frozenset({Rule.ONE_END, Rule.LIVE})).raise_if_failed()


def test_a_history_survives_its_json_lines() -> None:
    history = complete(sound())
    duplicate(history)
    again = History.from_lines(list(history.lines()))
    assert again.events == history.events
    assert again.check().anomalies == history.check().anomalies == ["duplicate", "stuck"]


@st.composite
def deliveries(draw: st.DrawFn) -> list[int]:
    """The places one observer got, in order: mostly right."""
    places = list(range(1, COUNT + 1))
    for _ in range(draw(st.integers(0, 2))):
        action, at = draw(st.sampled_from(["drop", "double", "swap"])), draw(st.integers(0, len(places) - 2))
        match action:
            case "drop":
                places.pop(at)
            case "double":
                places.insert(at, places[at])
            case _:
                places[at], places[at + 1] = places[at + 1], places[at]
    return places


@given(deliveries())
def test_an_observer_is_right_exactly_when_it_got_everything_once_in_order(places: list[int]) -> None:
    history = sound(observers=1)
    history.open("tested", 0)
    for place in places:
        history.deliver("tested", place, f"m{place}", f"payload {place}")
    history.end("tested", "completed")
    verdict = complete(history).check().verdict
    assert (verdict is Verdict.PASS) == (places == list(range(1, COUNT + 1)))
