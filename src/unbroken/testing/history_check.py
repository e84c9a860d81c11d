"""The thirteen rules of a stream's history, each checked in one pass.

`History.check` calls `judge`. It never guesses: what was not recorded is not claimed or inconclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unbroken.testing.history_events import (
    Ack,
    Deliver,
    End,
    Event,
    Fail,
    Fault,
    Final,
    Heal,
    Invoke,
    Leave,
    Open,
    Read,
    Trim,
)
from unbroken.testing.history_report import Finding, Report, Rule, Verdict

__all__ = ["judge"]

Witness = dict[str, str | int]


@dataclass(slots=True)
class _Sent:
    producer: str
    digest: str
    index: int


@dataclass(slots=True)
class _Acked:
    position: int
    index: int


@dataclass(slots=True)
class _Observer:
    """Where one observer is, over all its connections."""

    last: int
    delivered: int = 0
    missing: dict[int, int] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    last_at_end: int = 0
    left: bool = False


class _Findings:
    """The first evidence for each rule, and how much more there is."""

    def __init__(self) -> None:
        self._found: dict[Rule, tuple[str, Witness]] = {}
        self._count: dict[Rule, int] = {}

    def report(self, rule: Rule, anomaly: str, **witness: str | int) -> None:
        self._found.setdefault(rule, (anomaly, witness))
        self._count[rule] = self._count.get(rule, 0) + 1

    def finding(self, rule: Rule, *, judged: bool, claimed: bool) -> Finding:
        if not claimed:
            return Finding(rule, Verdict.NOT_CLAIMED)
        if rule in self._found:
            anomaly, witness = self._found[rule]
            return Finding(rule, Verdict.FAIL, anomaly, witness, self._count[rule])
        return Finding(rule, Verdict.PASS if judged else Verdict.INCONCLUSIVE)


def judge(
    events: Sequence[Event], *, messages_min: int, liveness_seconds: float | None, without: frozenset[Rule]
) -> Report:
    """The report on a whole history."""
    checker = _Checker(liveness_seconds)
    for index, event in enumerate(events):
        checker.take(index, event)
    return checker.report(messages_min, without)


class _Checker:
    """One pass over the events, then one over the final read."""

    def __init__(self, liveness_seconds: float | None) -> None:
        self._liveness_seconds = liveness_seconds
        self._findings = _Findings()
        self._sent: dict[str, _Sent] = {}
        self._acked: dict[str, _Acked] = {}
        self._acked_again: list[tuple[str, int]] = []
        self._failed: set[str] = set()
        self._id_at: dict[int, tuple[str, str]] = {}
        self._place_of: dict[str, tuple[int, str]] = {}
        self._observers: dict[str, _Observer] = {}
        self._began: list[tuple[str, int]] = []
        self._reads: dict[int, int] = {}
        self._read_count = 0
        self._acked_most = 0
        self._delivered = 0
        self._faults: dict[str, int] = {}
        self._final: Final | None = None
        self._healed_at: float | None = None
        self._first = 1

    def take(self, index: int, event: Event) -> None:
        match event:
            case Deliver():
                self._deliver(event)
            case Invoke(producer, name, digest):
                self._sent.setdefault(name, _Sent(producer, digest, index))
            case Ack(name, position):
                if self._acked.setdefault(name, _Acked(position, index)).position != position:
                    self._acked_again.append((name, position))
                self._acked_most = max(self._acked_most, position)
            case Open(observer, cursor):
                self._open(observer, cursor)
            case Read():
                self._read(event)
            case _:
                self._take_rare(event)

    def _take_rare(self, event: Event) -> None:
        match event:
            case Fail(name):
                self._failed.add(name)
            case End(name):
                observer = self._observer(name)
                observer.ends.append(event)
                observer.last_at_end = observer.last
            case Leave(name):
                self._observer(name).left = True
            case Final():
                self._final = event
            case Fault(kind, effect):
                self._faults[kind] = self._faults.get(kind, 0) + effect
            case Heal(at):
                self._healed_at = at
            case Trim(first):
                self._first = max(self._first, first)
            case _:
                return  # `unknown` asks for nothing more than that the message is there at most once

    # --- while it happens --------------------------------------------------------------------------------------------

    def _open(self, name: str, cursor: int) -> None:
        observer = self._observers.get(name)
        if observer is None:
            self._observers[name] = _Observer(cursor)
            self._began.append((name, cursor))
        elif cursor > observer.last:
            self._findings.report(Rule.CURSOR, "cursor ahead", observer=name, cursor=cursor, last=observer.last)

    def _deliver(self, event: Deliver) -> None:
        self._delivered += 1
        observer = self._observer(event.observer)
        observer.delivered += 1
        if observer.ends:
            self._findings.report(
                Rule.ONE_END, "delivery after the end", observer=event.observer, position=event.position
            )
        self._known(event.id, event.digest, event.observer, event.position)
        self._one_place(event.id, event.observer, event.position)
        self._dense(observer, event)

    def _known(self, name: str, digest: str, observer: str, position: int) -> None:
        sent = self._sent.get(name)
        if sent is None:
            self._findings.report(Rule.KNOWN, "phantom", observer=observer, position=position, id=name)
        elif sent.digest != digest:
            self._findings.report(Rule.KNOWN, "corrupt", observer=observer, position=position, id=name)

    def _one_place(self, name: str, observer: str, position: int) -> None:
        known, other = self._id_at.setdefault(position, (name, observer))
        if known != name:
            self._findings.report(
                Rule.ONE_PLACE, "divergent", position=position, id=known, observer=other, other_id=name, by=observer
            )
        place, other = self._place_of.setdefault(name, (position, observer))
        if place != position:
            self._findings.report(
                Rule.ONE_PLACE, "stored twice", id=name, position=place, other_position=position, by=observer
            )

    def _dense(self, observer: _Observer, event: Deliver) -> None:
        position, expected = event.position, observer.last + 1
        if position == expected:
            observer.last = position
        elif position > expected:
            for missed in range(expected, min(position, expected + 1000)):
                observer.missing[missed] = position
            observer.last = position
        elif observer.missing.pop(position, None) is not None:
            self._findings.report(
                Rule.DENSE, "reorder", observer=event.observer, position=position, behind=observer.last
            )
        else:
            self._findings.report(
                Rule.DENSE, "duplicate", observer=event.observer, position=position, last=observer.last
            )

    def _read(self, event: Read) -> None:
        if event.begins:
            self._reads[event.number] = self._acked_most
            return
        self._read_count += 1
        promised = self._reads.pop(event.number, 0)
        if event.last < promised:
            self._findings.report(
                Rule.FRESH_READ, "stale read", observer=event.observer, last=event.last, acknowledged=promised
            )

    def _observer(self, name: str) -> _Observer:
        """An observer that never said where it begins, begins with the stream."""
        return self._observers.setdefault(name, _Observer(0))

    # --- at the end --------------------------------------------------------------------------------------------------

    def report(self, messages_min: int, without: frozenset[Rule]) -> Report:
        for name, observer in self._observers.items():
            for missed, before in observer.missing.items():
                self._findings.report(Rule.DENSE, "gap", observer=name, position=missed, before=before)
        for name in self._failed:
            if name in self._place_of:
                place, by = self._place_of[name]
                self._findings.report(Rule.NOT_FAILED, "aborted read", id=name, position=place, observer=by)
        if self._final is not None:
            self._check_final(self._final)
        self._check_ends()
        lag = self._check_liveness()
        enough = self._delivered >= messages_min
        ended = any(observer.ends for observer in self._observers.values())
        judged = {
            **dict.fromkeys((Rule.KNOWN, Rule.NOT_FAILED, Rule.ONE_PLACE, Rule.DENSE, Rule.CURSOR), enough),
            **dict.fromkeys((Rule.ACKED_KEPT, Rule.SEEN_KEPT, Rule.ONCE), self._final is not None),
            **dict.fromkeys((Rule.PRODUCER_ORDER, Rule.REAL_TIME), self._final is not None),
            Rule.FRESH_READ: self._read_count > 0,
            Rule.ONE_END: ended,
            Rule.LIVE: ended,
        }
        unclaimed = without | (frozenset() if self._read_count else frozenset({Rule.FRESH_READ}))
        doubts = [f"the fault {kind} never bit" for kind, effect in self._faults.items() if effect == 0]
        if not enough:
            doubts.append(f"only {self._delivered} of at least {messages_min} messages were delivered")
        return Report(
            findings={
                rule: self._findings.finding(rule, judged=judged[rule], claimed=rule not in unclaimed) for rule in Rule
            },
            delivered=self._delivered,
            acknowledged=len(self._acked),
            faults={kind: effect for kind, effect in self._faults.items() if effect},
            lag_seconds=lag,
            doubts=tuple(doubts),
        )

    def _check_final(self, final: Final) -> None:
        places: dict[str, int] = {}
        ids: dict[int, str] = {}
        for position, name, digest in final.rows:
            self._known(name, digest, final.observer, position)
            if name in places:
                self._findings.report(
                    Rule.ONCE, "double append", id=name, position=places[name], other_position=position
                )
            places.setdefault(name, position)
            if ids.setdefault(position, name) != name:
                self._findings.report(
                    Rule.ONE_PLACE, "divergent", position=position, id=ids[position], other_id=name, by=final.observer
                )
                ids[position] = name
            if name in self._failed:
                self._findings.report(
                    Rule.NOT_FAILED, "aborted read", id=name, position=position, observer=final.observer
                )
        self._check_kept(places, ids)
        self._check_order(final)
        self._check_whole(final)

    def _check_kept(self, places: dict[str, int], ids: dict[int, str]) -> None:
        for name, acked in self._acked.items():
            if name not in places and not 0 < acked.position < self._first:
                self._findings.report(Rule.ACKED_KEPT, "acked lost", id=name, position=acked.position)
        told = [(name, acked.position) for name, acked in self._acked.items()]
        for name, position in (*told, *self._acked_again):
            place = places.get(name, position)
            if position not in {0, place}:
                self._findings.report(Rule.ACKED_KEPT, "ack position", id=name, position=position, other_position=place)
        for position, (name, observer) in self._id_at.items():
            if position >= self._first and ids.get(position) != name:
                self._findings.report(Rule.SEEN_KEPT, "seen then lost", id=name, position=position, observer=observer)

    def _check_order(self, final: Final) -> None:
        latest_by_producer: dict[str, tuple[int, str]] = {}
        latest = (-1, "")
        counted: set[str] = set()
        for position, name, _ in final.rows:
            sent = self._sent.get(name)
            if sent is None or name in counted:
                continue
            counted.add(name)
            before, other = latest_by_producer.get(sent.producer, (-1, ""))
            if sent.index < before:
                self._findings.report(
                    Rule.PRODUCER_ORDER,
                    "producer order",
                    producer=sent.producer,
                    id=name,
                    behind=other,
                    position=position,
                )
            else:
                latest_by_producer[sent.producer] = (sent.index, name)
            acked = self._acked.get(name)
            if acked is not None and acked.index < latest[0]:
                self._findings.report(Rule.REAL_TIME, "realtime", id=name, behind=latest[1], position=position)
            latest = max(latest, (sent.index, name))

    def _check_whole(self, final: Final) -> None:
        """The last read is dense from the first message that is kept; nobody began behind its end."""
        expected = self._first
        for number, (position, _, _) in enumerate(final.rows):
            if number and position == expected - 1:
                continue  # two at one place are another rule's to name
            if position != expected and (number or position > expected):
                anomaly = "gap" if position > expected else "reorder"
                self._findings.report(
                    Rule.DENSE, anomaly, observer=final.observer, position=min(expected, position), before=position
                )
            expected = position + 1
        head = expected - 1
        for name, cursor in self._began:
            if cursor > head:
                self._findings.report(Rule.CURSOR, "cursor ahead", observer=name, cursor=cursor, head=head)

    def _check_ends(self) -> None:
        told = [(name, observer) for name, observer in self._observers.items() if observer.ends]
        states = {end.state: name for name, observer in told for end in observer.ends}
        if self._final is not None and self._final.state and told:
            states.setdefault(self._final.state, self._final.observer)
        if len(states) > 1:
            (one, first), (two, second) = list(states.items())[:2]
            self._findings.report(
                Rule.ONE_END, "different ends", state=one, observer=first, other_state=two, other_observer=second
            )
        last = max((position for position, _, _ in self._final.rows), default=0) if self._final is not None else 0
        for name, observer in told:
            if len(observer.ends) > 1:
                self._findings.report(Rule.ONE_END, "two ends", observer=name)
            if observer.last_at_end < last:
                self._findings.report(Rule.ONE_END, "ended early", observer=name, last=observer.last_at_end, head=last)

    def _check_liveness(self) -> float | None:
        """Whoever watches and did not leave must be told of the end, once anybody was; gives the longest lag."""
        waiting = {name: each for name, each in self._observers.items() if not each.left}
        over = any(each.ends for each in waiting.values()) or bool(self._final is not None and self._final.state)
        for name, observer in waiting.items():
            if over and not observer.ends:
                self._findings.report(Rule.LIVE, "stuck", observer=name, last=observer.last)
        if self._healed_at is None:
            return None
        lags = {name: each.ends[0].at - self._healed_at for name, each in waiting.items() if each.ends}
        slowest = max(lags, key=lambda name: lags[name], default=None)
        if slowest is None:
            return None
        if self._liveness_seconds is not None and lags[slowest] > self._liveness_seconds:
            self._findings.report(Rule.LIVE, "too late", observer=slowest, seconds=round(lags[slowest]))
        return max(lags[slowest], 0.0)
