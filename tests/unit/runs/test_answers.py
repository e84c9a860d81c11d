"""Answers held against the schemas of their questions: what fits, what does not and why, and schemas that mean harm."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from unbroken.errors import InvalidError, TooLargeError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.runs.answers import check_answer

OBJECT = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green"]},
        "count": {"type": "integer", "minimum": 1},
        "mail": {"type": "string", "format": "email"},
        "sizes": {"type": "array", "items": {"type": "string", "pattern": "^[SML]$"}},
    },
    "required": ["colour"],
    "additionalProperties": False,
}
NESTED = {"$defs": {"box": {"properties": {"size": {"$ref": "#/$defs/size"}}}, "size": {"type": "number"}}}


def check(schema: object, answer: object, kind: str = "task", limits: Limits = DEFAULT_LIMITS) -> InvalidError | None:
    question = msgspec.Raw(json.dumps({"id": "q", "message": "?", "schema": schema}).encode())
    try:
        check_answer(kind, question, msgspec.Raw(json.dumps(answer).encode()), limits)
    except InvalidError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("answer", "field", "reason"),
    [
        ({}, "response.colour", "colour: is required"),
        ({"colour": "blue"}, "response.colour", 'colour: this is not one of "red" or "green"'),
        ({"colour": "red", "count": 0}, "response.count", "count: this is less than the minimum of 1"),
        ({"colour": "red", "count": "1"}, "response.count", 'count: this is not of type "integer"'),
        ({"colour": "red", "mail": "nobody"}, "response.mail", 'mail: this is not a "email"'),
        ({"colour": "red", "sizes": ["S", "X"]}, "response.sizes.1", 'sizes.1: this does not match "^[SML]$"'),
        ({"colour": "red", "x": 1}, "response", "the answer: Additional properties are not allowed"),
        ("red", "response", 'the answer: this is not of type "object"'),
        (None, "response", 'the answer: this is not of type "object"'),
    ],
)
def test_what_does_not_fit_is_told_with_its_place_and_reason(answer: object, field: str, reason: str) -> None:
    error = check(OBJECT, answer)
    assert error is not None
    assert error.detail["field"] == field
    assert error.message.startswith(reason)


@pytest.mark.parametrize("answer", [{"colour": "red"}, {"colour": "green", "count": 2, "mail": "a@b.example"}])
def test_what_fits_is_taken(answer: object) -> None:
    assert check(OBJECT, answer) is None


@pytest.mark.parametrize("schema", [None, True, "x", 3, []])
def test_a_question_without_a_schema_takes_everything(schema: object) -> None:
    assert check(schema, {"anything": [1]}) is None


def test_references_within_the_schema_are_followed() -> None:
    schema = {"$ref": "#/$defs/box", **NESTED}
    assert check(schema, {"size": 1.5}) is None
    error = check(schema, {"size": "large"})
    assert error is not None
    assert error.detail["field"] == "response.size"


@pytest.mark.parametrize("answer", [None, False, {"action": "decline"}, {"action": "cancel"}])
def test_a_question_of_a_tool_may_be_declined_and_one_of_a_task_may_not(answer: object) -> None:
    assert check(OBJECT, answer, kind="tool") is None
    assert check(OBJECT, answer) is not None
    assert check(OBJECT, {"action": "accept"}, kind="tool") is not None
    assert check(OBJECT, {"action": ["decline"]}, kind="tool") is not None, "any JSON may be sent"


def test_the_reason_tells_nothing_of_a_long_answer_and_is_short_itself() -> None:
    error = check({"pattern": "^b$"}, "s3cret" * 10_000)
    assert error is not None
    assert "s3cret" not in error.message
    error = check({"enum": ["x" * 1000, "y"]}, "z")
    assert error is not None
    assert len(error.message) < 600


def test_an_answer_that_is_too_deep_is_refused() -> None:
    deep = msgspec.Raw(b"[" * 200 + b"]" * 200)
    with pytest.raises(TooLargeError):
        check_answer("task", msgspec.Raw(b'{"id":"q"}'), deep, DEFAULT_LIMITS)


def doubling(levels: int) -> dict[str, Any]:
    """A schema of a few values that takes 2 to the power of `levels` steps."""
    twice = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**twice, f"a{levels}": {"type": "string"}}}


def chained(links: int) -> dict[str, Any]:
    """References to references, the last first, so that each is known when it is met."""
    chain = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in reversed(range(links))}
    return {"$defs": {f"a{links}": {"type": "string"}, **chain}, "$ref": "#/$defs/a0"}


HOSTILE: dict[str, dict[str, Any]] = {
    "a pattern that backtracks": {"pattern": "^(?=a)(a+)+$"},
    "a pattern that explodes": {"pattern": "((\\w{200}){200}){200}"},
    "very many patterns": {"allOf": [{"pattern": f"\\w{{50}}{n}"} for n in range(5_000)]},
    "very many patterns of names": {"patternProperties": {f"\\w{{50}}{n}": False for n in range(5_000)}},
    "another document": {"$ref": "https://127.0.0.1/schema.json"},
    "a file": {"$ref": "file:///etc/passwd"},
    "a part of another document": {"properties": {"a": {"$ref": "other.json#/x"}}},
    "an old language with a base of its own": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "allOf": [{"id": "http://127.0.0.1/x", **doubling(30)}],
    },
    "a base of its own": {"allOf": [{"$id": "http://127.0.0.1/x", **doubling(30)}]},
    "itself": {"$ref": "#"},
    "itself, further down": {"properties": {"a": {"$ref": "#/properties/a"}}},
    "each other": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "nothing": {"$ref": "#/$defs/missing"},
    "an anchor": {"$ref": "#there", "$defs": {"x": {"$anchor": "there", "type": "string"}}},
    "a dynamic place": {"$dynamicRef": "#there", "$defs": {"x": {"$dynamicAnchor": "there", "type": "string"}}},
    "twice, thirty times over": doubling(30),
    "a long chain": chained(5_000),
    "an invalid type": {"type": "nonsense"},
    "an invalid form": {"properties": [], "required": "x"},
    "an invalid pattern": {"pattern": "("},
    "a megabyte": {"properties": {f"p{n}": {"type": "string", "title": "x"} for n in range(30_000)}},
    "a megabyte in one pattern": {"pattern": "x" * 1_000_000},
    "great depth": json.loads('{"not":' * 120 + '{"$ref":"#/$defs/x"}' + "}" * 120) | {"$defs": chained(50)["$defs"]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_schema_that_cannot_be_used_allows_everything(name: str) -> None:
    assert check(HOSTILE[name], 1) is None
    assert check(HOSTILE[name], {"a": "x"}) is None


def test_nobody_is_asked_for_a_schema_or_its_language() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        assert check({"$ref": url}, 1) is None
        assert check({"$schema": url, "type": "string"}, 1) is not None, "it is read as the newest language"
        assert check({"$id": url, "type": "string"}, 1) is not None
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_in_a_thread_with_a_small_stack_nothing_overflows() -> None:
    code = (
        "import threading\n"
        "from tests.unit.runs.test_answers import HOSTILE, check\n"
        "threading.stack_size(256 * 1024)\n"
        "def work():\n"
        "    for schema in HOSTILE.values(): assert check(schema, 1) is None\n"
        "    print('whole')\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 5_000])
def test_a_number_that_cannot_be_held_is_no_answer_and_no_rule(number: str) -> None:
    for answer in (number, f'{{"count":{number}}}'):
        with pytest.raises(InvalidError, match="number") as caught:
            check_answer("task", msgspec.Raw(b'{"id":"q"}'), msgspec.Raw(answer.encode()), DEFAULT_LIMITS)
        assert caught.value.detail["field"] == "response"
    question = msgspec.Raw(f'{{"id":"q","schema":{{"minimum":{number}}}}}'.encode())
    check_answer("task", question, msgspec.Raw(b"1"), DEFAULT_LIMITS)


def test_a_pattern_costs_time_in_proportion_to_the_text() -> None:
    error = check({"pattern": "^(a+)+$"}, "a" * 60_000 + "b")
    assert error is not None


def test_what_is_too_much_work_is_not_done() -> None:
    schema = {"items": {"type": "integer", "minimum": 0}}
    assert check(schema, [-1] * 10) is not None
    assert check(schema, [-1] * 10, limits=replace(DEFAULT_LIMITS, run_schema_steps_max=300)) is not None
    assert check(schema, [-1] * 100, limits=replace(DEFAULT_LIMITS, run_schema_steps_max=300)) is None
    assert check(schema, [-1], limits=replace(DEFAULT_LIMITS, run_schema_values_max=3)) is None


def test_the_checker_is_loaded_with_the_first_schema_only() -> None:
    code = "import sys, unbroken.runs.answers, unbroken.server.app; print('jsonschema_rs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
