"""Migrations: what is applied, what is refused."""

from __future__ import annotations

import pytest

from unbroken.errors import StoreUnsupportedError
from unbroken.store.migrate import Applied, Migration, Phase, load_migrations, parse_migration, pending

FIRST = parse_migration("0001_pre_initial.sql", "CREATE TABLE a (x);")
SECOND = parse_migration("0002_post_drop.sql", "DROP TABLE a;")
THIRD = parse_migration("0003_pre_more.sql", "CREATE TABLE b (x);")
ALL = frozenset(Phase)


def recorded(*migrations: Migration) -> list[Applied]:
    return [Applied(m.number, m.name, m.checksum) for m in migrations]


def test_a_file_name_says_number_phase_and_name() -> None:
    assert (FIRST.number, FIRST.phase, FIRST.name) == (1, Phase.PRE, "0001_pre_initial")
    assert SECOND.phase is Phase.POST
    for bad in ("1_pre_a.sql", "0001_mid_a.sql", "0001_pre_a.txt", "0001_pre_.sql", "0001_pre_A.sql"):
        with pytest.raises(ValueError, match="not called"):
            parse_migration(bad, "")


def test_the_checksum_covers_the_text_but_not_the_platforms_line_ends() -> None:
    assert parse_migration("0001_pre_a.sql", "a\r\nb").checksum == parse_migration("0001_pre_a.sql", "a\nb").checksum
    assert parse_migration("0001_pre_a.sql", "a\nb").checksum != parse_migration("0001_pre_a.sql", "a\nc").checksum


def test_what_is_missing_is_applied_in_order_and_by_phase() -> None:
    assert pending([FIRST, SECOND, THIRD], [], ALL) == [FIRST, SECOND, THIRD]
    assert pending([FIRST, SECOND, THIRD], recorded(FIRST), ALL) == [SECOND, THIRD]
    assert pending([FIRST, SECOND, THIRD], recorded(FIRST), frozenset({Phase.PRE})) == [THIRD]
    assert pending([FIRST, SECOND, THIRD], recorded(FIRST, THIRD), ALL) == [SECOND]
    assert pending([FIRST], recorded(FIRST), ALL) == []


def test_a_newer_database_and_an_edited_migration_are_refused() -> None:
    with pytest.raises(StoreUnsupportedError, match="newer version") as caught:
        pending([FIRST], recorded(FIRST, SECOND), ALL)
    assert caught.value.detail == {"migration": 2}
    edited = parse_migration("0001_pre_initial.sql", "CREATE TABLE a (y);")
    with pytest.raises(StoreUnsupportedError, match="edited"):
        pending([edited], recorded(FIRST), ALL)


def test_the_shipped_migrations_are_numbered_without_a_gap() -> None:
    shipped = load_migrations("sqlite")
    assert [m.number for m in shipped] == list(range(1, len(shipped) + 1))
    assert shipped[0].phase is Phase.PRE
