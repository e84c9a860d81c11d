"""What an execution learns of those before it."""

from __future__ import annotations

from typing import Any

import msgspec

from unbroken.messages import NewMessage
from unbroken.runs.history import History


def told(kind: str, body: Any = None) -> NewMessage:
    return NewMessage(kind=kind, json=msgspec.Raw(msgspec.json.encode(body)))


def fold(*messages: NewMessage) -> History:
    history = History()
    for message in messages:
        history.take(message)
    return history


def test_what_was_yielded_counts_from_the_last_checkpoint() -> None:
    one = NewMessage(kind="text", text="1")
    history = fold(told("accepted"), told("started"), one, one, told("progress"), told("checkpoint", {"state": 1}), one)
    assert (history.started, history.yielded, history.checkpoint) == (1, 1, msgspec.Raw(b"1"))
    assert fold(told("started"), one, one).yielded == 2
    assert fold(told("checkpoint", {"state": None})).checkpoint == msgspec.Raw(b"null")


def test_the_first_answer_to_a_question_counts() -> None:
    asked = told("input_required", {"id": "q", "message": "?"})
    history = fold(asked, told("input", {"id": "q", "response": 1}), told("input", {"id": "q", "response": 2}))
    assert msgspec.json.decode(history.asked["q"])["message"] == "?"
    assert msgspec.json.decode(history.answered["q"])["response"] == 1
    assert fold(asked).answered == {}


AFTER_CRASH = told("started", {"attempt": 2, "after_crash": True})


def test_crashes_count_in_a_row_without_anything_new() -> None:
    first = (told("accepted"), told("started", {"attempt": 1}))
    assert fold(*first[:1]).crashes_now == 0, "nothing was begun"
    assert fold(*first).crashes_now == 1
    assert fold(*first, AFTER_CRASH, told("progress"), told("log")).crashes_now == 2
    assert fold(*first, AFTER_CRASH, AFTER_CRASH).crashes_now == 3


def test_whoever_gets_on_has_not_crashed_and_the_next_one_counts_from_there() -> None:
    one = NewMessage(kind="text", text="1")
    for new in (one, told("checkpoint", {"state": 1}), told("file", {"stream": "f"}), told("task", {"taskId": "t"})):
        got_on = (told("started"), AFTER_CRASH, AFTER_CRASH, new)
        assert fold(*got_on).crashes_now == 0
        assert fold(*got_on, AFTER_CRASH).crashes_now == 1


def test_the_same_checkpoint_once_more_is_nothing_new() -> None:
    here, there = told("checkpoint", {"state": "here"}), told("checkpoint", {"state": "there"})
    assert fold(told("started"), here, AFTER_CRASH, here, AFTER_CRASH, here).crashes_now == 2
    assert fold(told("started"), here, AFTER_CRASH, here, AFTER_CRASH, there).crashes_now == 0


def test_an_execution_that_was_released_or_retried_neither_counts_nor_forgives() -> None:
    again = told("started", {"attempt": 3})
    assert fold(told("started"), AFTER_CRASH, again).crashes == 1
    assert fold(told("started"), AFTER_CRASH, again, AFTER_CRASH).crashes == 2


def test_a_crash_while_a_question_is_open_does_not_count() -> None:
    asked = told("input_required", {"id": "q", "message": "?"})
    waiting = fold(told("started"), asked, *(AFTER_CRASH,) * 9)
    assert waiting.crashes_now == 0
    answered = told("input", {"id": "q", "response": 1})
    assert fold(told("started"), asked, AFTER_CRASH, answered, AFTER_CRASH).crashes_now == 1
