"""The fast history checker and the naive one agree, on whatever history, right or damaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.testing import History, Rule, Verdict
from unbroken.testing.history_events import (
    Ack,
    Deliver,
    End,
    Event,
    Fail,
    Final,
    Heal,
    Invoke,
    Leave,
    Open,
    Trim,
    Unknown,
)
from unbroken.testing.history_naive import naive_verdicts

T = TypeVar("T")
PRODUCERS = ("p", "q")
LIVENESS_SECONDS = 10.0


class _Story:
    """A history that is right, told step by step as the draws decide."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.history = History(now=lambda: float(len(self.history.events)))
        self.log: list[str] = []
        self.sent = 0
        self.observers: dict[str, int] = {}

    def pick(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))

    def send(self) -> None:
        """A message is sent; it becomes durable, or fails, or nobody knows."""
        name = f"m{self.sent}"
        self.sent += 1
        self.history.invoke(self.pick(PRODUCERS), name, name)
        outcome = self.pick(("ack", "ack", "ack", "fail", "unknown", "lost"))
        if outcome == "fail":
            self.history.fail(name)
            return
        if outcome != "lost":
            self.log.append(name)
        if outcome == "ack":
            self.history.ack(name, len(self.log))
        else:
            self.history.unknown(name)

    def join(self) -> None:
        """Somebody begins anywhere, or comes back where he was."""
        name = f"o{self.draw(st.integers(0, 2))}"
        cursor = self.observers.get(name)
        if cursor is None:
            cursor = self.draw(st.integers(0, len(self.log)))
        self.observers[name] = cursor
        self.history.open(name, cursor)

    def catch_up(self) -> None:
        """Somebody gets some of what there is."""
        if not self.observers:
            return
        name = self.pick(sorted(self.observers))
        for position in range(self.observers[name] + 1, self.draw(st.integers(0, len(self.log))) + 1):
            message = self.log[position - 1]
            self.history.deliver(name, position, message, message)
            self.observers[name] = position

    def read(self) -> None:
        done = self.history.read("reader")
        done(len(self.log))

    def finish(self) -> None:
        """Everybody gets the rest and is told of the end, and somebody new reads it all."""
        if self.draw(st.booleans()):
            self.history.heal()
        for name in self.observers:
            if self.draw(st.integers(0, 5)) == 0:
                self.history.leave(name)
                continue
            for position in range(self.observers[name] + 1, len(self.log) + 1):
                self.history.deliver(name, position, self.log[position - 1], self.log[position - 1])
            self.history.end(name, "completed")
        first = self.draw(st.integers(1, len(self.log))) if self.log and self.draw(st.integers(0, 3)) == 0 else 1
        self.history.trim(first)
        rows = [(place, name, name) for place, name in enumerate(self.log, 1) if place >= first]
        self.history.final(rows, state="completed")


@st.composite
def right_histories(draw: st.DrawFn) -> History:
    story = _Story(draw)
    steps = (story.send, story.send, story.join, story.catch_up, story.catch_up, story.read)
    for _ in range(draw(st.integers(0, 25))):
        story.pick(steps)()
    story.finish()
    return story.history


def changed(draw: st.DrawFn, event: Event) -> Event:
    """The event with one thing about it wrong."""
    near = draw(st.integers(-2, 2))
    name = f"m{draw(st.integers(0, 12))}"
    observer = f"o{draw(st.integers(0, 2))}"
    replace = msgspec.structs.replace
    match event:
        case Deliver():
            wrong: Sequence[Event] = (
                replace(event, position=event.position + near),
                replace(event, id=name),
                replace(event, digest="wrong"),
                replace(event, observer=observer),
            )
        case Ack():
            wrong = (replace(event, position=event.position + near), replace(event, id=name), Fail(event.id))
        case Invoke():
            wrong = (replace(event, producer="p"), replace(event, digest="wrong"), replace(event, id=name))
        case Open():
            wrong = (replace(event, cursor=max(0, event.cursor + near)), replace(event, observer=observer))
        case End():
            wrong = (replace(event, state="failed"), replace(event, observer=observer), replace(event, at=1_000.0))
        case Final():
            rows = list(event.rows)
            draw(st.randoms(use_true_random=False)).shuffle(rows)
            moved = tuple((place + near, other, digest) for place, other, digest in event.rows)
            wrong = (
                replace(event, rows=event.rows[:-1]),
                replace(event, rows=event.rows + event.rows[:1]),
                replace(event, rows=tuple(rows)),
                replace(event, rows=moved),
                replace(event, state=""),
                replace(event, state="failed"),
            )
        case _:
            wrong = (Leave(observer), Fail(name), Unknown(name), Heal(0.0), Trim(3))
    return draw(st.sampled_from(wrong))


@st.composite
def damaged_histories(draw: st.DrawFn) -> History:
    """A history that was right, with some events dropped, doubled, swapped or changed."""
    history = draw(right_histories())
    events = history.events
    for _ in range(draw(st.integers(1, 4))):
        if not events:
            break
        at = draw(st.integers(0, len(events) - 1))
        match draw(st.sampled_from(("drop", "double", "swap", "change", "change"))):
            case "drop":
                events.pop(at)
            case "double" if not isinstance(events[at], Final):
                events.insert(draw(st.integers(0, len(events))), events[at])
            case "swap" if at:
                events[at - 1], events[at] = events[at], events[at - 1]
            case _:
                events[at] = changed(draw, events[at])
    return history


def fast(history: History) -> dict[Rule, Verdict]:
    report = history.check(liveness_seconds=LIVENESS_SECONDS)
    return {rule: finding.verdict for rule, finding in report.findings.items()}


@settings(max_examples=300, deadline=None)
@given(damaged_histories())
def test_both_checkers_give_the_same_verdict_on_every_rule_of_a_damaged_history(history: History) -> None:
    assert fast(history) == naive_verdicts(history.events, liveness_seconds=LIVENESS_SECONDS)


@settings(max_examples=150, deadline=None)
@given(right_histories())
def test_both_checkers_find_nothing_wrong_with_a_right_history(history: History) -> None:
    verdicts = fast(history)
    assert verdicts == naive_verdicts(history.events, liveness_seconds=LIVENESS_SECONDS)
    assert Verdict.FAIL not in {verdict for rule, verdict in verdicts.items() if rule is not Rule.LIVE}


def test_there_are_thirteen_rules_and_four_verdicts() -> None:
    assert [rule.value for rule in Rule] == list(range(1, 14))
    assert {verdict.value for verdict in Verdict} == {"pass", "fail", "inconclusive", "not claimed"}
    assert set(naive_verdicts([])) == set(Rule)
    assert set(naive_verdicts([]).values()) == {Verdict.INCONCLUSIVE, Verdict.NOT_CLAIMED}
