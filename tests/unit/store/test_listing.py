"""Prefixes and page tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import InvalidError
from unbroken.store.listing import page, parse_position, parse_token, prefix_end

NAMES = st.text(st.characters(codec="utf-8"), max_size=6)


@given(NAMES.filter(bool), NAMES)
def test_the_range_of_a_prefix_holds_exactly_the_names_that_begin_with_it(prefix: str, name: str) -> None:
    end = prefix_end(prefix)
    for candidate in (name, prefix + name):
        inside = prefix.encode() <= candidate.encode() and (end is None or candidate.encode() < end.encode())
        assert inside == candidate.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("a", "b"), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("\ud7ff", "\ue000"), ("ä/", "ä0"), ("a%", "a&")],
)
def test_the_end_of_a_prefix(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


def test_a_page_has_a_token_only_when_there_is_more() -> None:
    assert page([5, 4, 3], 3, int) == page([5, 4, 3], 9, int)
    assert page([5, 4, 3], 3, int).next is None
    assert page([5, 4, 3], 2, int).items == (5, 4)
    assert page([5, 4, 3], 2, int).next == "4"
    assert page([], 2, int).next is None


@pytest.mark.parametrize("token", ["", "0", "-1", "1.", "x", "1 ", "٣", "9" * 19])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidError):
        parse_token(token)


@pytest.mark.parametrize("token", ["", "1", "1.-1", "1.5.2", "0.1", "9999999999999999999.1", "1.05"])
def test_what_is_no_position_is_refused(token: str) -> None:
    with pytest.raises(InvalidError):
        parse_position(token)


def test_tokens_come_back() -> None:
    assert parse_token("17") == 17
    assert parse_token(None) == 2**63 - 1
    assert parse_position("17.0") == (17, 0)
    assert parse_position(None) == (0, 0)
