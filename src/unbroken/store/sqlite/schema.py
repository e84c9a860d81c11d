"""Migrates an SQLite database: the dialect's half of `unbroken.store.migrate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from unbroken.store.migrate import Applied, Migration
from unbroken.store.sqlite.connection import Connection
from unbroken.store.sqlite.tables import QUERIES

__all__ = ["SQLiteTarget"]


class SQLiteTarget:
    """A database file behind one connection; the write lock keeps other migrating processes out."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As `Target.transaction`. A table may be made anew in it: what refers to the old one must not go with it."""
        self._db.refer(checked=False)
        try:
            with self._db.transaction():
                yield
        finally:
            self._db.refer(checked=True)

    def applied(self) -> list[Applied]:
        with self._db.failing():
            if self._db.one(QUERIES["migrations_exist"]) is None:
                return []
            rows = self._db.all(QUERIES["migrations_applied"])
        return [Applied(*cast("tuple[int, str, str]", row)) for row in rows]

    def apply(self, migration: Migration, now_ms: int) -> None:
        if self._db.one(QUERIES["migrations_exist"]) is None:
            self._db.run(QUERIES["migrations_create"])
        self._db.run(migration.sql)
        record = (migration.number, migration.name, migration.checksum, now_ms)
        self._db.run(QUERIES["migration_record"], record)
