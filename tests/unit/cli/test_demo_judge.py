"""The demonstration's verdict finds every fault that it is there to find."""

from __future__ import annotations

import pytest

from unbroken.demo.once import Report, StreamReport, Watch, judge
from unbroken.demo.scenes import TEXT, words

ACKNOWLEDGED = {1: "a", 2: "b", 3: "c"}
GOOD = [(1, "a"), (2, "b"), (3, "c")]


def seen(*messages: tuple[int, str], state: str = "completed") -> Watch:
    return Watch(seen=list(messages), state=state)


def test_a_history_without_faults_passes() -> None:
    report = judge("s", ACKNOWLEDGED, 3, [seen(*GOOD), seen(*GOOD)])
    assert report == StreamReport("s", 3, 2, 0, 0, "completed")
    assert Report((report,), kills=3).passed


@pytest.mark.parametrize(
    ("watch", "lost", "doubled", "fault"),
    [
        (seen((1, "a"), (3, "c")), 1, 0, None),
        (seen((1, "a"), (2, "b")), 1, 0, None),
        (seen((1, "a"), (2, "b"), (2, "b"), (3, "c")), 0, 1, "out of order"),
        (seen((2, "b"), (1, "a"), (3, "c")), 0, 0, "out of order"),
        (seen((1, "a"), (2, "X"), (3, "c")), 0, 0, "not what was appended"),
        (seen(*GOOD, (4, "d")), 0, 0, "more than is stored"),
    ],
)
def test_each_fault_is_found(watch: Watch, lost: int, doubled: int, fault: str | None) -> None:
    report = judge("s", ACKNOWLEDGED, 3, [seen(*GOOD), watch])
    assert (report.lost, report.doubled) == (lost, doubled)
    assert fault is None or fault in report.faults
    assert not Report((report,), kills=3).passed


def test_what_was_never_acknowledged_but_stored_counts_too() -> None:
    assert judge("s", {}, 2, [seen((1, "x"))]).lost == 1


def test_an_end_that_not_everybody_was_told_fails() -> None:
    report = judge("s", ACKNOWLEDGED, 3, [seen(*GOOD), seen(*GOOD, state="interrupted")])
    assert not Report((report,), kills=3).passed


def test_a_run_without_kills_proves_nothing() -> None:
    assert not Report((judge("s", ACKNOWLEDGED, 3, [seen(*GOOD)]),), kills=2).passed


def test_the_words_joined_are_the_answer() -> None:
    assert "".join(words(1)) == TEXT
