"""Brings a database's schema up to date: numbered SQL files, each applied once and recorded with its checksum.

Stores call `migrate` when they open, through a `Target` that speaks their database's dialect. It never changes a database
that a newer version wrote, or one whose recorded migrations differ from the files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from importlib.resources import files
from typing import Protocol

from unbroken.errors import StoreUnsupportedError

__all__ = ["Applied", "Migration", "Phase", "Target", "load_migrations", "migrate", "parse_migration", "pending"]

_NAME = re.compile(r"(\d{4})_(pre|post)_([a-z0-9_]+)\.sql")


class Phase(StrEnum):
    """When a migration may run: before the code that needs it is rolled out, or after the last server runs that code."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    phase: Phase
    name: str
    sql: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A step that a database has behind it."""

    number: int
    name: str
    checksum: str


class Target(Protocol):
    """A database that can be migrated."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything within happens as a whole or not at all, and alone among all migrating processes."""
        ...

    def applied(self) -> list[Applied]:
        """The steps that are recorded, by number; creates the record when it is missing and we are in a transaction."""
        ...

    def apply(self, migration: Migration, now_ms: int) -> None:
        """Run the step and record it."""
        ...


def parse_migration(filename: str, sql: str) -> Migration:
    """The migration in a file called `0001_pre_name.sql`; the checksum covers its text."""
    match = _NAME.fullmatch(filename)
    if match is None:
        raise ValueError(f"{filename} is not called NNNN_pre_name.sql or NNNN_post_name.sql")
    checksum = sha256(sql.replace("\r\n", "\n").encode()).hexdigest()
    return Migration(int(match[1]), Phase(match[2]), filename.removesuffix(".sql"), sql, checksum)


def load_migrations(dialect: str) -> list[Migration]:
    """The migrations of `sql/DIALECT/migrations/`, by number, which counts from 1 without a gap."""
    folder = files("unbroken.store").joinpath("sql", dialect, "migrations")
    found = [parse_migration(file.name, file.read_text(encoding="utf-8")) for file in folder.iterdir()]
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations of {dialect} are not numbered 1, 2, 3 …")
    return found


def pending(migrations: Sequence[Migration], applied: Sequence[Applied], phases: frozenset[Phase]) -> list[Migration]:
    """What is left to apply, in order; `StoreUnsupportedError` when the database and the code have no common past."""
    known = {migration.number: migration for migration in migrations}
    for step in applied:
        migration = known.get(step.number)
        if migration is None:
            raise StoreUnsupportedError(
                f"the database was written by a newer version of Unbroken (it has migration {step.name}); "
                "this one leaves it alone",
                migration=step.number,
            )
        if migration.checksum != step.checksum:
            raise StoreUnsupportedError(
                f"migration {step.name} is not the one that this database was made with ({migration.name} here): "
                "one of them was edited",
                migration=step.number,
            )
    done = {step.number for step in applied}
    return [migration for migration in migrations if migration.number not in done and migration.phase in phases]


def migrate(
    target: Target, migrations: Sequence[Migration], now_ms: int, phases: frozenset[Phase] = frozenset(Phase)
) -> list[Migration]:
    """Apply what is pending, all of it in one transaction; which steps that were.

    Looks without a lock first, so that a database that is up to date opens while another process writes.
    """
    if not pending(migrations, target.applied(), phases):
        return []
    with target.transaction():
        steps = pending(migrations, target.applied(), phases)
        for step in steps:
            target.apply(step, now_ms)
    return steps
