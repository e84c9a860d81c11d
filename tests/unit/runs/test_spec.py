"""What a start says and what is stored of it: every form of nonsense is refused, every name can name a stream."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import CorruptError, InvalidError, TooLargeError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import check_name
from unbroken.runs.spec import RunRequest, RunSpec, run_name

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


@given(name=TEXT, server=TEXT, unique=TEXT)
def test_whatever_a_run_is_called_its_stream_has_a_valid_name(name: str, server: str, unique: str) -> None:
    spec = RunSpec(type="tool", name=name, server=server)
    found = run_name(spec, unique)
    assert check_name(found, DEFAULT_LIMITS) == found
    assert run_name(spec, unique) == found
    assert run_name(spec, unique + "x") != found


def test_the_name_of_a_run_tells_what_it_is_and_not_its_key() -> None:
    found = run_name(RunSpec(type="tool", name="clock", server="time"), "alice's s3cret key")
    assert found.startswith("runs/time/clock/")
    assert "s3cret" not in found


def test_what_is_stored_is_read_again_and_anything_else_is_corrupt() -> None:
    spec = RunRequest(task="t", arguments=raw('{ "a" : 1 }'), idle_seconds=2).spec(DEFAULT_LIMITS)
    assert RunSpec.parse(spec.encode()) == spec
    assert bytes(spec.arguments) == b'{"a":1}', "on one line, however it was written"
    with pytest.raises(CorruptError):
        RunSpec.parse("[]")


def test_work_is_the_same_whatever_the_order_of_its_arguments() -> None:
    one = RunRequest(task="t", arguments=raw('{"a":1,"b":2}')).spec(DEFAULT_LIMITS)
    assert one.same_work(RunRequest(task="t", arguments=raw('{"b":2,"a":1}'), total_seconds=5).spec(DEFAULT_LIMITS))
    assert not one.same_work(RunRequest(task="t", arguments=raw('{"b":2}')).spec(DEFAULT_LIMITS))
    assert not one.same_work(RunRequest(program="t", arguments=raw('{"a":1,"b":2}')).spec(DEFAULT_LIMITS))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (RunRequest(), "task"),
        (RunRequest(task="a", program="b"), "task"),
        (RunRequest(task="a", server="s"), "server"),
        (RunRequest(tool="a"), "server"),
        (RunRequest(task="a", arguments=raw("[]")), "arguments"),
        (RunRequest(task="a", arguments=raw("{")), "arguments"),
        (RunRequest(task="a", arguments=raw('{"a":"' + "x" * DEFAULT_LIMITS.run_spec_bytes_max + '"}')), "arguments"),
        (RunRequest(task="a", idle_seconds=-1), "idle_seconds"),
        (RunRequest(task="a", idle_seconds=float("nan")), "idle_seconds"),
        (RunRequest(task="a", total_seconds=DEFAULT_LIMITS.run_seconds_max * 2), "total_seconds"),
    ],
)
def test_a_start_that_is_none_names_the_field(request_: RunRequest, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        request_.spec(DEFAULT_LIMITS)
    assert caught.value.detail["field"] == field


def test_arguments_with_a_number_that_cannot_be_held_are_refused() -> None:
    with pytest.raises(InvalidError):
        RunRequest(task="t", arguments=raw('{"size":1e400}')).spec(DEFAULT_LIMITS)


def test_arguments_nested_too_deep_are_refused() -> None:
    deep = '{"a":' * 200 + "1" + "}" * 200
    with pytest.raises(TooLargeError):
        RunRequest(task="a", arguments=raw(deep)).spec(DEFAULT_LIMITS)
