"""One connection to the database file: how it is opened, its transactions, and what becomes of them when SQLite fails.

Writer, readers and checkpointer each own one and use it from their own thread. A connection never retries, and whatever
failed in it, the next transaction starts clean.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import apsw

from unbroken.errors import CopyError, StoreUnavailableError, StoreUnsupportedError
from unbroken.limits import Limits
from unbroken.store.sealing import Keyring
from unbroken.store.sqlite.failures import translated
from unbroken.store.sqlite.files import OpenFiles
from unbroken.store.sqlite.page_checksums import PAGE_CHECKSUM_BYTES, checking_vfs
from unbroken.store.sqlite.stream_keys import StreamKeys

__all__ = ["SQLITE_OLDEST", "Connection", "InterruptedByBoundError", "Row", "StillConnection", "Value", "check_sqlite"]

Value = str | int | float | bytes | None
Row = tuple[Value, ...]
SQLITE_OLDEST = 3_051_003
_UNWRITTEN = {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_TRUNCATE, apsw.SQLITE_IOERR_FSYNC}
PROGRESS_STEPS = 1_000
"""Steps of SQLite's machine between two looks at the clock."""


class InterruptedByBoundError(Exception):
    """There was no time to finish."""


def check_sqlite(version: int) -> None:
    """Refuse an SQLite whose write-ahead log can damage the database when two connections reset it at once."""
    if version < SQLITE_OLDEST:
        have = f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
        raise StoreUnsupportedError(
            f"this SQLite is {have}; versions before 3.51.3 can corrupt a database in WAL mode. "
            "The apsw package from PyPI brings a newer one",
            version=have,
        )


class Connection:
    """A connection in WAL mode. `full` syncs every commit to the disk; `read_only` refuses to write.

    With `ring` what streams hold is encrypted, and `keys` has their keys.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        full: bool,
        read_only: bool = False,
        on_wal: Callable[[int], None] | None = None,
        ring: Keyring | None = None,
    ) -> None:
        self.keys = StreamKeys(self, ring)
        self._path = path
        self._limits = limits
        self._full = full
        self._read_only = read_only
        self._on_wal = on_wal
        self._raw: apsw.Connection | None = None
        self._files = OpenFiles(path)
        self._rescued = False
        self._closed = False
        with self.failing():
            self._open()

    def _open(self) -> apsw.Connection:
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        self.check_files()
        vfs = checking_vfs()
        raw = apsw.Connection(str(self._path), vfs=vfs)
        try:
            self._configure(raw, checksums=vfs is not None)
        except BaseException:
            raw.close(force=True)
            raise
        self._raw = raw
        self._files.remember()
        self._cursor = raw.cursor()
        return raw

    def check_files(self) -> None:
        """`StoreUnavailableError` unless the files that were opened first are still those that have the names.

        SQLite would go on writing into a file that nobody finds again, or past somebody else. Outside a transaction only.
        """
        lost = self._files.lost()
        if lost is None:
            self._rescued = False
            return
        self._rescue()
        if lost == self._path.name:
            way_out = "Put the file back, or stop every server and worker that has it open and start again"
        elif self._rescued:
            way_out = (
                "What it held is in the database file now. "
                "Stop every server and worker that has the database open and start again"
            )
        else:
            way_out = (
                "Stop every server and worker that has the database open, run `unbroken verify --all`, and start again"
            )
        raise StoreUnavailableError(
            f"{lost} was deleted or replaced while it was open, so nothing is written. {way_out}"
        )

    def _rescue(self) -> None:
        """Copy what a deleted log holds into the database, while SQLite still has it open and nobody else can be at it."""
        if self._raw is None or self._read_only or self._rescued or not self._files.only_log_missing():
            return
        with suppress(apsw.Error):  # busy: the next look tries again
            pages, copied = self._raw.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._rescued = pages == copied

    def _configure(self, raw: apsw.Connection, *, checksums: bool) -> None:
        raw.set_busy_timeout(int(self._limits.store_busy_seconds_max * 1000))
        execute = raw.execute
        if execute("PRAGMA page_count").fetchall() == [(0,)]:
            if checksums:
                raw.reserve_bytes("main", PAGE_CHECKSUM_BYTES)
            execute("PRAGMA auto_vacuum = INCREMENTAL")  # in a file that has it already this would be a write
        elif not checksums and raw.reserve_bytes("main", -1) == PAGE_CHECKSUM_BYTES:
            raise StoreUnsupportedError(
                f"the pages of {self._path.name} carry checksums, and this apsw cannot keep them. "
                "The apsw package from PyPI can"
            )
        mode = execute("PRAGMA journal_mode = WAL").fetchall()[0][0]
        if mode != "wal":
            raise StoreUnavailableError(
                f"the file system below {self._path.name} does not do WAL (SQLite stays in {mode})"
            )
        execute("PRAGMA foreign_keys = ON")
        execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        execute(f"PRAGMA fullfsync = {int(self._full)}")
        execute(f"PRAGMA cache_size = -{self._limits.store_cache_bytes // 1024}")
        page_bytes = raw.pragma("page_size")
        assert isinstance(page_bytes, int)
        execute(f"PRAGMA max_page_count = {self._limits.store_bytes_max // page_bytes}")
        if self._read_only:
            execute("PRAGMA query_only = ON")
        else:
            execute("PRAGMA secure_delete = FAST").fetchall()
        raw.wal_autocheckpoint(0)
        if self._on_wal is not None:
            raw.set_wal_hook(self._wal_grew)

    def _wal_grew(self, _raw: apsw.Connection, _database: str, pages: int) -> int:
        if self._on_wal is not None:
            self._on_wal(pages)
        return apsw.SQLITE_OK

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write: all of it or nothing. Waits for other processes for a bounded time; raises the store's typed errors."""
        self.check_files()
        self._begin("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException as error:
            self._roll_back()
            meaning = translated(error) if isinstance(error, apsw.Error) else None
            if meaning is None:
                raise
            raise meaning from error
        try:
            self._cursor.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            meaning = translated(error, committing=True)
            assert meaning is not None
            raise meaning from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read: everything within sees the same moment."""
        if self._files.parted():
            raise StoreUnavailableError(
                "somebody else has another log of this database, so what is read could be mixed up"
            )
        self._begin("BEGIN")
        try:
            with self.failing():
                yield
        finally:
            self._roll_back()

    def _begin(self, statement: str) -> None:
        with self.failing():
            if self._raw is None:
                self._open()
            self._cursor.execute(statement)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """What SQLite raises inside becomes one of the store's typed errors."""
        try:
            yield
        except apsw.Error as error:
            meaning = translated(error)
            if meaning is None:
                raise
            raise meaning from error

    def _roll_back(self) -> None:
        """End the transaction; a connection that cannot even do that is dropped and opened again by the next one."""
        raw = self._raw
        if raw is None or not raw.in_transaction:
            return
        try:
            self._cursor.execute("ROLLBACK")
        except apsw.Error:
            self._drop()

    def one(self, sql: str, values: Sequence[Value] = ()) -> Row | None:
        """The first row, when there is one."""
        rows = self._cursor.execute(sql, values).fetchall()
        return rows[0] if rows else None

    def all(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        return self._cursor.execute(sql, values).fetchall()

    def each(self, sql: str, values: Sequence[Value]) -> Iterator[Row]:
        """Rows one by one, as they are asked for; other statements may run between them."""
        assert self._raw is not None
        cursor = self._raw.cursor()
        try:
            yield from cursor.execute(sql, values)
        finally:
            cursor.close(force=True)

    def run(self, sql: str, values: Sequence[Value] = ()) -> None:
        self._cursor.execute(sql, values)

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        self._cursor.executemany(sql, rows)

    def changes(self) -> int:
        """How many rows the last statement changed."""
        assert self._raw is not None
        return self._raw.changes()

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """Statements inside that take longer raise `InterruptedByBoundError`; for those that change nothing."""
        raw = self._raw or self._open()
        ends = time.monotonic() + seconds
        raw.set_progress_handler(lambda: time.monotonic() > ends, PROGRESS_STEPS)
        try:
            yield
        except apsw.InterruptError:
            raise InterruptedByBoundError from None
        finally:
            raw.set_progress_handler(None)

    def data_version(self) -> int:
        """A number that changes when another connection has written; our own writes leave it."""
        with self.failing():
            raw = self._raw or self._open()
            version = raw.pragma("data_version")
        assert isinstance(version, int)
        return version

    def refer(self, *, checked: bool) -> None:
        """Whether foreign keys are held; a connection that was dropped holds them when it is opened again."""
        if self._raw is not None:
            with self.failing():
                self._cursor.execute(f"PRAGMA foreign_keys = {'ON' if checked else 'OFF'}")

    def overwrite(self, *, everything: bool) -> None:
        """Whether all that is deleted is overwritten in the file, or only what costs no further write."""
        self._cursor.execute(f"PRAGMA secure_delete = {'ON' if everything else 'FAST'}").fetchall()

    def rewrite(self) -> None:
        """Write the whole database anew, outside of a transaction: where SQLite moved rows, pages still hold copies of them.

        The copy that it is made from is in memory; until the next checkpoint the write-ahead log is as large as the database.
        """
        self.check_files()
        with self.failing():
            raw = self._raw or self._open()
            raw.execute("PRAGMA temp_store = MEMORY")
            try:
                raw.execute("VACUUM").fetchall()
            finally:
                raw.execute("PRAGMA temp_store = DEFAULT")

    def checkpoint(self, mode: int) -> int:
        """Copy the write-ahead log into the database as far as `mode` goes; how many pages it has."""
        self.check_files()
        with self.failing():
            raw = self._raw or self._open()
            return raw.wal_checkpoint(mode=mode)[0]

    def copy_to(self, target: Path, step_pages: int) -> Iterator[tuple[int, int]]:
        """Copy this moment's whole database over the file `target`, in steps; gives (pages copied, pages in all) after each.

        Others may write meanwhile: they wait for nothing, and the copy has none of it.
        """
        with self.snapshot():
            self.one("SELECT count(*) FROM sqlite_schema")  # from here on the snapshot stands
            copy = apsw.Connection(str(target), vfs=checking_vfs())
            try:
                copy.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").fetchall()
                assert self._raw is not None
                _begin_like(self._raw, copy)
                with copy.backup("main", self._raw, "main") as backup:
                    while not backup.done:
                        backup.step(step_pages)
                        yield backup.page_count - backup.remaining, backup.page_count
            except apsw.IOError as error:
                if getattr(error, "extendedresult", 0) not in _UNWRITTEN or not copy.system_errno:
                    raise  # it was the source, perhaps a damaged page of it
                raise CopyError(f"{target} cannot be written: {os.strerror(copy.system_errno)}") from error
            finally:
                copy.close(force=True)

    def close(self) -> None:
        """Let go of the file for good."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        raw, self._raw = self._raw, None
        if raw is None:
            return
        taken = self._files.taken()
        with suppress(apsw.Error):
            if taken:  # SQLite would copy a log that is no more into this database, and delete the other
                raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            raw.close(force=True)
        if not taken:
            self._files.let_go()


def _begin_like(source: apsw.Connection, copy: apsw.Connection) -> None:
    """Write page 1 of an empty copy, so that every page that is copied gets a checksum, where those of `source` have them.

    Pages in the write-ahead log have none, and the layer that makes them knows only from page 1 that it shall; SQLite may
    write others before it. What the page holds is overwritten by the source's.
    """
    copy.execute(f"PRAGMA page_size = {source.pragma('page_size')}")
    copy.reserve_bytes("main", source.reserve_bytes("main", -1))
    copy.execute("PRAGMA user_version = 1")


class StillConnection(Connection):
    """A connection for reading a file that nobody changes: it takes no locks and makes no files beside it."""

    def __init__(self, path: Path, limits: Limits, ring: Keyring | None = None) -> None:
        super().__init__(path, limits, full=False, read_only=True, ring=ring)

    def _open(self) -> apsw.Connection:
        address = f"file:{quote(str(self._path.absolute()))}?immutable=1"
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        self._raw = apsw.Connection(address, flags=flags, vfs=checking_vfs())
        self._cursor = self._raw.cursor()
        return self._raw
