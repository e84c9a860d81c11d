"""Rows are read from a page in a bounded number of looks, whatever the page says of itself."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import apsw

from unbroken.store.sqlite.salvage.records import TABLE_LEAF, cells

PAGE = 4096
LOOKS_MAX = 50_000
"""More than 2,000 rows need, and far less than the 65,535 that a page can say it has."""


class Page(bytes):
    """A page that counts how often somebody looks at it."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)


def missing(_number: int) -> bytes:
    return bytes(PAGE)


def rows_page(path: Path) -> bytes:
    """A page with 20 rows of a table."""
    raw = apsw.Connection(str(path))
    raw.execute(
        "CREATE TABLE t (x); WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
        "INSERT INTO t SELECT 'row ' || i FROM n"
    )
    raw.close()
    return path.read_bytes()[PAGE : 2 * PAGE]


def test_a_page_that_holds_no_rows_costs_a_look_and_not_one_for_each_row_that_it_seems_to_have() -> None:
    overflow = Page(bytes([0, 0, 1, 0xFF, 0xFF]) + b"\xff" * (PAGE - 5))
    assert list(cells(overflow, 7, PAGE, missing)) == []
    assert overflow.looks < 5


def test_a_page_that_says_it_has_too_many_rows_gives_those_that_it_has_in_a_bounded_number_of_looks(
    tmp_path: Path,
) -> None:
    sound = rows_page(tmp_path / "t.db")
    rows = list(cells(sound, 2, PAGE, missing))
    assert sorted(rows) == [(n, [f"row {n}"]) for n in range(1, 21)]
    damaged = Page(sound[:3] + b"\xff\xff" + sound[5:])
    assert list(cells(damaged, 2, PAGE, missing))[:20] == rows
    assert damaged.looks < LOOKS_MAX
    torn = Page(bytes([TABLE_LEAF, 0, 0, 0xFF, 0xFF]) + Random(20261127).randbytes(PAGE - 5))
    list(cells(torn, 2, PAGE, missing))
    assert torn.looks < LOOKS_MAX
