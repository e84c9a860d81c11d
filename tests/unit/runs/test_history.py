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
