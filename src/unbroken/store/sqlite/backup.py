"""Copies of a whole database: `back_up` makes one while servers go on writing, `restore` puts one in a database's place.

The command line calls both, from a process of its own. A copy gets its name only when it is whole, verified and on the disk,
and nothing is ever overwritten in place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unbroken.clock import SystemClock
from unbroken.errors import (
    AlreadyExistsError,
    CopyError,
    CorruptError,
    InUseError,
    InvalidError,
    NotFoundError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnsupportedError,
)
from unbroken.limits import Limits
from unbroken.store.migrate import load_migrations, migrate
from unbroken.store.sealing import Keyring
from unbroken.store.sqlite.connection import Connection, StillConnection
from unbroken.store.sqlite.examine import Examination, examine, is_database
from unbroken.store.sqlite.schema import SQLiteTarget

__all__ = ["Progress", "alone", "back_up", "check_target", "finish", "in_use", "partial", "restore", "verified"]

Progress = Callable[[str, int, int], None]
"""Told what is done now, how much of it is done, and how much there is (0: nobody knows)."""
STEP_PAGES = 1_000
SHARED_FIRST = 0x40000002
"""Where SQLite locks a file that is open: a range of bytes beyond any data."""
SHARED_SIZE = 510
_BESIDE = ("-wal", "-shm", "-journal")
_PARTIAL = ".partial"
_OF_A_DATABASE = (*_BESIDE, "-ballast", _PARTIAL)
"""What the names of files end with that are a database's own."""


def _quiet(_what: str, _done: int, _of: int) -> None:
    """Progress that nobody wants."""


def back_up(
    source: Path,
    target: Path,
    limits: Limits,
    *,
    replace: bool = False,
    progress: Progress = _quiet,
    ring: Keyring | None = None,
) -> Examination:
    """Copy the database `source`, as it is at this moment, to the file `target`, and verify the copy.

    Of an encrypted one the copy is encrypted too; without `ring` its checksums are verified, but not its hash chains.

    Raises `CorruptError` when the copy does not verify, `CopyError` when it cannot be written, and as `check_target`.
    Until all is well, `target` is what it was.
    """
    _check_source(source)
    check_target(source, target, replace=replace)
    with partial(target) as unfinished:
        _copy(Connection(source, limits, full=False, read_only=True), unfinished, progress)
        examination = verified(unfinished, limits, progress, ring)
        with alone(target):
            finish(unfinished, target)
    return examination


def restore(
    source: Path,
    database: Path,
    limits: Limits,
    *,
    replace: bool = False,
    progress: Progress = _quiet,
    ring: Keyring | None = None,
) -> tuple[Examination, Path | None]:
    """Put a copy of the backup `source` in the place of `database`; gives also where the one before it is now.

    `database` is brought to this version's schema and verified before it takes its place. Raises `InUseError` while a
    server has the database open, else as `back_up`. The old database is kept beside the new one.
    """
    _check_source(source)
    check_target(source, database, replace=replace)
    with partial(database) as unfinished:
        beside = source.with_name(source.name + "-wal")
        written_to = beside.exists() and beside.stat().st_size > 0
        kind = Connection(source, limits, full=False, read_only=True) if written_to else StillConnection(source, limits)
        _copy(kind, unfinished, progress)
        _migrate(unfinished, limits)
        examination = verified(unfinished, limits, progress, ring)
        with alone(database):
            kept = _set_aside(database)
            finish(unfinished, database)
    return examination, kept


@contextmanager
def partial(target: Path) -> Iterator[Path]:
    """The file beside `target` that becomes it; empty now, and gone at the end unless it was renamed.

    What a killed process left there is taken over; `InUseError` when somebody is at it, `CopyError` when it cannot be made.
    """
    path = _unfinished(target)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CopyError(f"{path} cannot be made: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUseError(f"another process is making {target} now") from None
        if _locked(handle):
            raise _used(path)
        os.ftruncate(handle, 0)
        try:
            yield path
        except StoreUnavailableError as error:
            raise CopyError(f"{target} cannot be made: {error.message}") from error
        finally:
            for leftover in (path, *_beside(path)):
                leftover.unlink(missing_ok=True)
    finally:
        os.close(handle)


def finish(unfinished: Path, target: Path) -> None:
    """Give a file that is whole its name, for good: also when the power goes right afterwards.

    What lies beside `target` belongs to a database that is gone; SQLite would take it for this one's, so it is renamed.
    """
    try:
        for left in _beside(target):
            if left.exists():
                left.rename(_unused(left))
        for place, flags in ((unfinished, os.O_RDWR), (None, os.O_RDONLY | os.O_DIRECTORY)):
            if place is None:
                unfinished.replace(target)
            handle = os.open(place or target.parent, flags | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise CopyError(f"{target} cannot be written: {error.strerror}") from error


def in_use(database: Path) -> bool:
    """Whether a process has the database open."""
    try:
        with database.open("rb+") as file:
            return _locked(file.fileno())
    except FileNotFoundError:
        return False
    except OSError as error:
        reason = f"{database} cannot be opened for writing, so nobody can tell whether it is in use: {error.strerror}"
        raise StoreUnavailableError(reason) from error


def _locked(handle: int) -> bool:
    """Whether another process has the file open as a database; if not, nobody can until `handle` is closed."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
    except OSError:
        return True
    return False


def _used(database: Path) -> InUseError:
    return InUseError(f"a server or worker has {database} open")


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _BESIDE]


def _check_source(source: Path) -> None:
    if not source.is_file():
        raise NotFoundError(f"there is no database {source}")


def check_target(source: Path, target: Path, *, replace: bool) -> None:
    """Refuse a target in whose place a copy of `source` would destroy more than the copy before it.

    `InvalidError` for the source itself and for the files that are a database's own, by whatever name or link;
    `AlreadyExistsError` unless the file may be made; `InUseError` while a process has it open.
    """
    for path in (target, _unfinished(target)):
        if _same(path, source):
            raise InvalidError(f"{path} is the database that is copied: give the copy a name of its own")
    database = _owner(source, target)
    if database is not None:
        raise InvalidError(f"{target} is a file of the database {database}: give the copy a name of its own")
    if target.exists() and not (replace and target.is_file()):
        raise AlreadyExistsError(f"{target} is there already; --force replaces it")
    if in_use(target):
        raise _used(target)


def _owner(source: Path, target: Path) -> Path | None:
    """The database that a file of this name belongs to, be the file there or not."""
    real, path = source.resolve(), target.resolve()
    if any(_same(path, real.with_name(real.name + suffix)) for suffix in _OF_A_DATABASE):
        return source
    stems = [path.name.removesuffix(suffix) for suffix in _OF_A_DATABASE if path.name.endswith(suffix)]
    return next((path.with_name(stem) for stem in stems if stem and path.with_name(stem).is_file()), None)


def _same(path: Path, other: Path) -> bool:
    """Whether both names lead to one file that is there."""
    return path.exists() and other.exists() and path.samefile(other)


def _unfinished(target: Path) -> Path:
    """Where `target` grows until it is whole."""
    return target.with_name(target.name + _PARTIAL)


def _copy(source: Connection, target: Path, progress: Progress) -> None:
    try:
        if not is_database(source):
            raise StoreUnsupportedError("this file is not one of Unbroken's databases")
        for done, pages in source.copy_to(target, STEP_PAGES):
            progress("copying", done, pages)
    except StoreFullError as error:
        raise StoreFullError(f"there is no room for {target}") from error
    finally:
        source.close()


def _migrate(path: Path, limits: Limits) -> None:
    connection = Connection(path, limits, full=True)
    try:
        migrate(SQLiteTarget(connection), load_migrations("sqlite"), SystemClock().now_ms())
    finally:
        connection.close()


def verified(path: Path, limits: Limits, progress: Progress, ring: Keyring | None = None) -> Examination:
    """What a copy that nobody uses holds; `CorruptError` with its first fault when it has one."""
    connection = StillConnection(path, limits, ring)
    try:
        examination = examine(connection, lambda streams: progress("verifying", streams, 0))
    finally:
        connection.close()
    if examination.faults:
        fault = examination.faults[0]
        where = "" if fault.stream is None else f"stream {fault.stream}, messages {fault.first} to {fault.last}: "
        more = f" (and {len(examination.faults) - 1} more)" if len(examination.faults) > 1 else ""
        raise CorruptError(f"the copy does not verify, so it was not kept: {where}{fault.reason}{more}")
    return examination


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Nobody can open the database meanwhile; `InUseError` when somebody has."""
    if not database.exists():
        yield
        return
    with database.open("rb+") as file:
        if _locked(file.fileno()):
            raise _used(database)
        yield


def _set_aside(database: Path) -> Path | None:
    """Rename the old database, with its write-ahead log, which must never meet the new one."""
    if not database.exists():
        return None
    kept = _unused(database)
    database.rename(kept)
    for old, new in zip(_beside(database), _beside(kept), strict=True):
        if old.exists():
            old.rename(new)
    return kept


def _unused(path: Path) -> Path:
    """A name for what was at `path`."""
    number, kept = 1, path.with_name(path.name + ".replaced")
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.replaced-{number}")
    return kept
