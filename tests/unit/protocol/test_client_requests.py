"""Requests without an answer, decision by decision: kept, sent again in order, settled once."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest

from tests.unit.protocol.test_client_subscription import view
from unbroken.errors import InvalidError, OverloadedError, UnbrokenError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.protocol.client_outputs import Done, Failed, Output, Send
from unbroken.protocol.client_requests import Requests, retry_after
from unbroken.protocol.frames import CreateFrame, Result


@pytest.fixture
def requests() -> Requests:
    return Requests(DEFAULT_LIMITS, Random(1), count(1).__next__)


def sent(outputs: list[Output]) -> list[int]:
    """The ids under which requests go out."""
    ids = []
    for output in outputs:
        assert isinstance(output, Send)
        ids.append(getattr(output.frame, "id"))  # noqa: B009 - only requests have one
    return ids


def test_a_result_settles_its_request_once(requests: Requests) -> None:
    key, outputs = requests.add(CreateFrame(id=0, stream="s"), connected=True)
    assert sent(outputs) == [1]
    assert requests.done(Result(id=1, stream=view(), created=True)) == [Done(key, view(), True)]
    assert requests.done(Result(id=1, stream=view(), created=True)) == []
    assert len(requests) == 0


def test_an_answer_to_an_earlier_sending_settles_it_too(requests: Requests) -> None:
    key, _ = requests.add(CreateFrame(id=0, stream="s"), connected=True)
    assert sent(requests.send_all()) == [2]
    assert requests.done(Result(id=1, stream=view())) == [Done(key, view(), False)]
    assert requests.done(Result(id=2, stream=view())) == []


def test_a_refusal_for_good_fails_it_with_the_error(requests: Requests) -> None:
    key, _ = requests.add(CreateFrame(id=0, stream="s"), connected=True)
    error = InvalidError("no")
    assert requests.failed(1, error, retryable=False, now=5.0) == [Failed(key, 1, error)]
    assert len(requests) == 0


def test_a_refusal_that_can_pass_rests_as_long_as_it_asks_and_goes_again(requests: Requests) -> None:
    requests.add(CreateFrame(id=0, stream="s"), connected=True)
    error = OverloadedError("later", retry_after_seconds=3)
    assert requests.failed(1, error, retryable=True, now=5.0) == []
    assert requests.next_at() == 8.0
    assert requests.due(7.9) == []
    assert sent(requests.due(8.0)) == [2]
    assert requests.next_at() is None


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(OverloadedError("x", retry_after_seconds=2), 2.0), (OverloadedError("x"), 0.0), (InvalidError("x"), 0.0)],
)
def test_what_an_error_asks_to_wait(error: UnbrokenError, seconds: float) -> None:
    assert retry_after(error) == seconds
