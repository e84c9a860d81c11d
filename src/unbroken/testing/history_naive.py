"""The thirteen rules once more, each by itself and as it is said: slow, and obviously right.

Tests hold `history_check`, which goes over a history once, against it. It shares no code with it but the names of the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

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
    Read,
    Trim,
)
from unbroken.testing.history_report import Rule, Verdict

__all__ = ["naive_verdicts"]

T = TypeVar("T")
Indexed = list[tuple[int, T]]


def naive_verdicts(
    events: Sequence[Event], *, messages_min: int = 1, liveness_seconds: float | None = None
) -> dict[Rule, Verdict]:
    """The verdict on each rule; takes time quadratic in the number of events."""
    history = _Naive(events, liveness_seconds)
    broken = {
        Rule.KNOWN: history.unknown(),
        Rule.NOT_FAILED: history.failed_but_there(),
        Rule.ONE_PLACE: history.two_places(),
        Rule.DENSE: history.not_dense(),
        Rule.CURSOR: history.cursor_ahead(),
        Rule.ACKED_KEPT: history.acknowledged_but_gone(),
        Rule.SEEN_KEPT: history.seen_but_gone(),
        Rule.ONCE: history.twice_at_the_end(),
        Rule.PRODUCER_ORDER: history.producer_out_of_order(),
        Rule.REAL_TIME: history.out_of_real_time(),
        Rule.FRESH_READ: history.stale_read(),
        Rule.ONE_END: history.bad_end(),
        Rule.LIVE: history.stuck(),
    }
    judged = history.judged(messages_min)
    return {rule: _verdict(broken=broken[rule], judged=judged[rule]) for rule in Rule}


def _verdict(*, broken: bool, judged: bool | None) -> Verdict:
    if judged is None:
        return Verdict.NOT_CLAIMED
    if broken:
        return Verdict.FAIL
    return Verdict.PASS if judged else Verdict.INCONCLUSIVE


class _Naive:
    """A history, and one question for each rule."""

    def __init__(self, events: Sequence[Event], liveness_seconds: float | None) -> None:
        self.events = list(enumerate(events))
        self.liveness_seconds = liveness_seconds
        self.delivered = self.all(Deliver)
        self.invoked = self.all(Invoke)
        self.acked = self.all(Ack)
        self.ends = self.all(End)
        finals = self.all(Final)
        self.final = finals[-1][1] if finals else None
        self.rows = [] if self.final is None else list(self.final.rows)
        self.first = max([1, *(trim.first for _, trim in self.all(Trim))])

    def all(self, kind: type[T]) -> Indexed[T]:
        """The events of a kind, with their places in the record."""
        return [(index, event) for index, event in self.events if isinstance(event, kind)]

    def observers(self) -> set[str]:
        """Everybody who connected, got or was told anything, or left."""
        return {event.observer for _, event in self.events if isinstance(event, Open | Deliver | End | Leave)}

    def sent(self, name: str) -> tuple[int, Invoke] | None:
        """The first time that a message was sent."""
        return next(((index, event) for index, event in self.invoked if event.id == name), None)

    def place_acknowledged(self, name: str) -> tuple[int, Ack] | None:
        """The first time that a message was acknowledged."""
        return next(((index, event) for index, event in self.acked if event.id == name), None)

    def began(self, observer: str) -> int:
        """The place behind which an observer began."""
        mine = [event for _, event in self.events if getattr(event, "observer", None) == observer]
        first = next((event for event in mine if isinstance(event, Open | Deliver | End | Leave)), None)
        return first.cursor if isinstance(first, Open) else 0

    def places(self, observer: str, *, upto: int | None = None) -> list[int]:
        """What an observer got, in order, before the record's place `upto`."""
        return [
            event.position
            for index, event in self.delivered
            if event.observer == observer and (upto is None or index < upto)
        ]

    def last(self, observer: str, upto: int) -> int:
        """How far an observer had come before the record's place `upto`."""
        return max([self.began(observer), *self.places(observer, upto=upto)])

    # --- one question for each rule ----------------------------------------------------------------------------------

    def unknown(self) -> bool:
        """Was anything delivered, or there at the end, that nobody had sent before, or with another content?"""
        got = [(index, event.id, event.digest) for index, event in self.delivered]
        got += [(len(self.events), name, digest) for _, name, digest in self.rows]
        for index, name, digest in got:
            sent = self.sent(name)
            if sent is None or sent[0] > index or sent[1].digest != digest:
                return True
        return False

    def failed_but_there(self) -> bool:
        """Was anything delivered, or there at the end, of which the server had said that it had no effect?"""
        there = {event.id for _, event in self.delivered} | {name for _, name, _ in self.rows}
        return any(event.id in there for _, event in self.all(Fail))

    def two_places(self) -> bool:
        """Did one place hold two messages, or one message two places, in what was delivered? Two at the end count too."""
        if any(one == other and name != another for one, name, _ in self.rows for other, another, _ in self.rows):
            return True
        return any(
            (one.position == other.position) != (one.id == other.id)
            for _, one in self.delivered
            for _, other in self.delivered
        )

    def not_dense(self) -> bool:
        """Did any observer, the one at the end too, get anything but the places behind its beginning, one after the other?"""
        for observer in self.observers():
            places, began = self.places(observer), self.began(observer)
            if places != list(range(began + 1, began + 1 + len(places))):
                return True
        rows = [place for place, _, _ in self.rows]
        places = [place for number, place in enumerate(rows) if number == 0 or place != rows[number - 1]]
        dense = places == list(range(min(places, default=1), min(places, default=1) + len(places)))
        return not dense or (bool(places) and places[0] > self.first)

    def cursor_ahead(self) -> bool:
        """Did any observer ask for what follows a place that it had not reached, or that there is not at the end?"""
        if any(event.cursor > self.last(event.observer, index) for index, event in self.all(Open)):
            return True
        head = self.rows[-1][0] if self.rows else self.first - 1
        return self.final is not None and any(self.began(observer) > head for observer in self.observers())

    def acknowledged_but_gone(self) -> bool:
        """Is anything that was acknowledged missing at the end, or at another place than was said?"""
        if self.final is None:
            return False
        for name in {event.id for _, event in self.acked}:
            told = self.place_acknowledged(name)
            assert told is not None
            position = told[1].position
            places = [place for place, other, _ in self.rows if other == name]
            trimmed = 0 < position < self.first
            wrong = any(event.position not in {0, *places[:1]} for _, event in self.acked if event.id == name)
            if (not places and not trimmed) or (places and wrong):
                return True
        return False

    def seen_but_gone(self) -> bool:
        """Is anything that somebody saw missing at the end, or another message at its place?"""
        if self.final is None:
            return False
        for _, event in self.delivered:
            seen_first = next(one.id for _, one in self.delivered if one.position == event.position)
            at_the_end = [name for place, name, _ in self.rows if place == event.position]
            if event.position >= self.first and (not at_the_end or at_the_end[-1] != seen_first):
                return True
        return False

    def twice_at_the_end(self) -> bool:
        """Is anything there twice at the end?"""
        names = [name for _, name, _ in self.rows]
        return len(names) != len(set(names))

    def _order(self) -> list[tuple[int, Invoke, tuple[int, Ack] | None]]:
        """The messages as they stand at the end, each once: when each was sent, by whom, and when acknowledged."""
        names = list(dict.fromkeys(name for _, name, _ in self.rows))
        sent = [(self.sent(name), self.place_acknowledged(name)) for name in names]
        return [(one[0], one[1], acked) for one, acked in sent if one is not None]

    def producer_out_of_order(self) -> bool:
        """Does any message stand behind a later one of the same producer?"""
        order = self._order()
        return any(
            one.producer == other.producer and sent > later
            for number, (sent, one, _) in enumerate(order)
            for later, other, _ in order[number + 1 :]
        )

    def out_of_real_time(self) -> bool:
        """Does any message stand behind one that was sent only after it had been acknowledged?"""
        order = self._order()
        return any(
            acked is not None and acked[0] < sent
            for number, (sent, _, _) in enumerate(order)
            for _, _, acked in order[number + 1 :]
        )

    def stale_read(self) -> bool:
        """Did any read end before a place that was acknowledged when it began?"""
        reads = self.all(Read)
        for index, end in reads:
            before = [(at, read) for at, read in reads if at < index and read.number == end.number]
            if end.begins or not before or not before[-1][1].begins:
                continue
            began = before[-1][0]
            if any(acked.position > end.last for at, acked in self.acked if at < began):
                return True
        return False

    def bad_end(self) -> bool:
        """Was any end told twice, before the last message, after which something came, or not the same to all?"""
        states = {event.state for _, event in self.ends}
        if self.ends and self.final is not None and self.final.state:
            states.add(self.final.state)
        head = max((place for place, _, _ in self.rows), default=0)
        told = [event.observer for _, event in self.ends]
        early = any(
            self.last(observer, max(index for index, event in self.ends if event.observer == observer)) < head
            for observer in told
        )
        after = any(
            event.observer == end.observer and index > at for index, event in self.delivered for at, end in self.ends
        )
        return len(states) > 1 or len(told) != len(set(told)) or early or after

    def stuck(self) -> bool:
        """Is anybody who did not leave never told of an end that there was, or too late?"""
        left = {event.observer for _, event in self.all(Leave)}
        waiting = self.observers() - left
        told = {event.observer for _, event in self.ends}
        over = bool(waiting & told) or bool(self.final is not None and self.final.state)
        if over and waiting - told:
            return True
        healed = self.all(Heal)
        if not healed or self.liveness_seconds is None:
            return False
        firsts = [next(event.at for _, event in self.ends if event.observer == one) for one in waiting & told]
        return any(at - healed[-1][1].at > self.liveness_seconds for at in firsts)

    # --- what there is to judge --------------------------------------------------------------------------------------

    def judged(self, messages_min: int) -> dict[Rule, bool | None]:
        """Whether there is enough for a verdict on each rule; None: nobody claims it."""
        enough, read, ended = len(self.delivered) >= messages_min, self.final is not None, bool(self.ends)
        reads = any(not event.begins for _, event in self.all(Read))
        return {
            **dict.fromkeys((Rule.KNOWN, Rule.NOT_FAILED, Rule.ONE_PLACE, Rule.DENSE, Rule.CURSOR), enough),
            **dict.fromkeys((Rule.ACKED_KEPT, Rule.SEEN_KEPT, Rule.ONCE, Rule.PRODUCER_ORDER, Rule.REAL_TIME), read),
            Rule.FRESH_READ: True if reads else None,
            Rule.ONE_END: ended,
            Rule.LIVE: ended,
        }
