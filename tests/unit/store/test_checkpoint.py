"""When the write-ahead log is copied, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.sqlite.checkpoint import Checkpointer
from unbroken.store.sqlite.connection import Connection

LIMITS = replace(DEFAULT_LIMITS, store_wal_bytes=10 * 4096)


class Log:
    """A database that is written to, and the length of its log after each commit."""

    def __init__(self, path: Path) -> None:
        self.pages = 0
        self.writing = Connection(path, LIMITS, full=False, on_wal=self._grew)
        self.checkpointer = Checkpointer(Connection(path, LIMITS, full=False), LIMITS)
        self.writing.run("CREATE TABLE t (x BLOB)")

    def _grew(self, pages: int) -> None:
        self.pages = pages

    def write(self, pages: int) -> None:
        with self.writing.transaction():
            self.writing.run("INSERT INTO t VALUES (zeroblob(?))", (4096 * pages,))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "a.db")
    yield made
    made.checkpointer.finish()
    made.writing.close()


def test_a_step_is_wanted_once_the_log_is_long_and_one_at_a_time(log: Log) -> None:
    assert not log.checkpointer.wanted(9)
    assert log.checkpointer.wanted(10)
    assert not log.checkpointer.wanted(11)
    assert not log.checkpointer.step()
    assert log.checkpointer.wanted(11)


def test_a_step_makes_the_next_commit_start_the_log_over(log: Log) -> None:
    log.write(12)
    assert log.pages > 10
    assert not log.checkpointer.step()
    log.write(1)
    assert log.pages < 10


def test_the_writer_helps_when_the_log_is_far_too_long(log: Log) -> None:
    log.write(30)
    assert log.checkpointer.step()
    assert not log.checkpointer.step(), "asked once is enough"
    log.write(30)
    log.checkpointer.help(log.writing)
    log.write(1)
    assert log.pages < 10


def test_the_writer_helps_at_once_when_the_log_is_enormous(log: Log) -> None:
    assert not log.checkpointer.swamped(79)
    assert log.checkpointer.swamped(80)
    assert not log.checkpointer.swamped(81)
    log.checkpointer.help(log.writing)
    assert log.checkpointer.swamped(80)


def test_a_reader_in_the_way_is_waited_for_and_not_cut_off(log: Log, tmp_path: Path) -> None:
    reading = Connection(tmp_path / "a.db", LIMITS, full=False, read_only=True)
    log.write(1)
    with reading.snapshot():
        before = reading.all("SELECT count(*) FROM t")
        log.write(30)
        log.checkpointer.step()
        log.write(1)
        assert log.pages > 30
        assert reading.all("SELECT count(*) FROM t") == before
    log.checkpointer.help(log.writing)
    log.write(1)
    assert log.pages < 10
    reading.close()
