"""Named SQL."""

from __future__ import annotations

import pytest

from unbroken.store.queries import load_queries, parse_queries

TEXT = """
-- A heading for people.

-- fragment: columns
a,
b

-- name: one
-- what it is for
SELECT /*columns*/ FROM t
WHERE a = ?1;

-- name: two
DELETE FROM t;
"""


def test_queries_are_found_by_name_with_their_fragments_filled_in() -> None:
    assert parse_queries(TEXT) == {"one": "SELECT a, b FROM t WHERE a = ?1", "two": "DELETE FROM t"}


def test_a_name_that_is_there_twice_or_a_fragment_that_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="two is there twice"):
        parse_queries(TEXT + "\n-- name: two\nSELECT 1;")
    with pytest.raises(KeyError):
        parse_queries("-- name: a\nSELECT /*none*/;")


def test_every_value_of_the_sqlite_store_is_a_parameter() -> None:
    queries = load_queries("sqlite")
    assert len(queries) > 30
    assert [name for name, sql in queries.items() if "{" in sql or "%" in sql or "/*" in sql] == []
