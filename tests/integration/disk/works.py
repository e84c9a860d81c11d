"""What a store does while its disk fails, and how it is judged afterwards; the sweeps move a fault through each of these.

A work is prepared once, on a sound disk, and done many times on copies of the file. Nothing here plants a fault.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.builders import ALICE, append, appending, create, encoded, read_all
from unbroken.errors import StoreError, UnbrokenError, UnknownOutcomeError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamInfo, StreamState
from unbroken.store.base import Append, Appended, Close, Done, Durability, Producer, Rejected, Trim, WriteOp
from unbroken.store.migrate import load_migrations, migrate
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.backup import back_up
from unbroken.store.sqlite.connection import Connection
from unbroken.store.sqlite.examine import examine
from unbroken.store.sqlite.schema import SQLiteTarget
from unbroken.store.threads import InlineWorker
from unbroken.testing import FaultDisk, History, Rule

__all__ = ["LIMITS", "OLD", "WORKS", "Case", "Work", "judge_file", "sound", "store_at"]

LIMITS = replace(
    DEFAULT_LIMITS, store_ballast_bytes=0, store_readers=1, store_wal_bytes=4096 * 24, compact_chunks_min=4
)
OLD = 40
"""Messages that a stream has before the work begins, in as many chunks."""
_UNCLAIMED = frozenset({Rule.FRESH_READ, Rule.ONE_END, Rule.LIVE, Rule.CURSOR})


def store_at(path: Path, durability: Durability = Durability.DISK) -> SQLiteStore:
    """A store that does everything in the caller's thread."""
    return SQLiteStore(path, durability=durability, limits=LIMITS, workers=InlineWorker)


class Case:
    """One attempt: the database, and what was told to whoever used it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History()
        self.refused: list[UnbrokenError] = []
        self.done: list[str] = []
        self.owed: list[tuple[str, WriteOp]] = []

    @contextmanager
    def refusing(self, what: str) -> Iterator[None]:
        """What happens inside either works or is refused with one of the store's errors; anything else is a defect."""
        try:
            yield
        except StoreError as error:
            self.refused.append(error)
        else:
            self.done.append(what)

    async def write(self, store: SQLiteStore, what: str, op: WriteOp) -> None:
        """One operation, as a producer sends it, with what it is told."""
        sends = isinstance(op, Append) and bool(op.messages)
        if sends and not self._invoked(what):
            self.history.invoke("p", what, what)
        before = len(self.refused)
        with self.refusing(what):
            (result,) = await store.write([op])
            assert not isinstance(result, Rejected), result
            if sends:
                assert isinstance(result, Appended)
                self.history.ack(what, result.last)
            assert isinstance(result, Appended | Done)
        for error in self.refused[before:]:
            self.owed.append((what, op))
            if sends and isinstance(error, UnknownOutcomeError):
                self.history.unknown(what)

    def _invoked(self, what: str) -> bool:
        return any(getattr(event, "id", None) == what for event in self.history.events)


Step = Callable[[SQLiteStore, Case], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Work:
    """`prepare` makes the database, `carry_out` is what a fault is moved through, `judge` looks at the file afterwards."""

    prepare: Callable[[Path], Awaitable[None]]
    carry_out: Callable[[Case], Awaitable[None]]
    judge: Callable[[SQLiteStore, Case], Awaitable[None]]


async def _with_stream(path: Path) -> None:
    store = store_at(path)
    await store.open()
    stream = await create(store, "a")
    for number in range(1, OLD + 1):
        await append(store, stream, [encoded(f"old {number}")])
    await store.close()


async def _stream(store: SQLiteStore) -> StreamInfo:
    stream = await store.get(ALICE, "a")
    assert stream is not None
    return stream


def sound(path: Path) -> None:
    """Every page, chunk, chain and count of a closed database is what it should be."""
    connection = Connection(path, LIMITS, full=False)
    try:
        examination = examine(connection)
    finally:
        connection.close()
    assert examination.faults == ()


async def judge_file(case: Case) -> None:
    """Open what is left as the next start of a server would, judge it, retry what was refused, and judge it again."""
    work = case_work(case)
    for again in (False, True):
        store = store_at(case.path)
        await store.open()
        try:
            if again:
                owed, case.owed = case.owed, []
                refused = len(case.refused)
                for what, op in owed:
                    await case.write(store, what, op)
                assert len(case.refused) == refused, "on a sound disk everything works again"
            await work.judge(store, case)
        finally:
            await store.close()
        sound(case.path)


def case_work(case: Case) -> Work:
    """The work that the case's file is named after."""
    return WORKS[case.path.name.partition(".")[0]]


# --- append and close -------------------------------------------------------------------------------------------------


def _appending(steps: list[tuple[str, Close | None]]) -> Callable[[Case], Awaitable[None]]:
    async def carry_out(case: Case) -> None:
        store = store_at(case.path)
        with case.refusing("open"):
            await store.open()
            stream = await _stream(store)
            for number, (what, close) in enumerate(steps):
                messages = [encoded(what)] if what else []
                op = appending(stream, messages, producer=Producer("p", 0, number), close=close)
                if case.owed:
                    case.owed.append((what or "close", op))  # a producer sends in order: this one waits behind it
                    if what:
                        case.history.invoke("p", what, what)
                        case.history.unknown(what)
                    continue
                await case.write(store, what or "close", op)
        await store.close()

    return carry_out


async def _judge_messages(store: SQLiteStore, case: Case) -> None:
    stream = await _stream(store)
    found = await read_all(store, stream.id)
    old, new = found[:OLD], found[OLD:]
    assert old == [f"old {n}" for n in range(1, OLD + 1)]
    rows = [(OLD + number, text, text) for number, text in enumerate(new, 1)]
    history = History.from_lines(case.history.lines())
    history.trim(OLD + 1)  # this history knows of no message before
    history.final(rows)
    report = history.check(messages_min=0, without=_UNCLAIMED)
    assert report.anomalies == [], str(report)
    if "close" in case.done:
        assert stream.state is StreamState.COMPLETED


# --- trim, compaction -------------------------------------------------------------------------------------------------


async def _trim(case: Case) -> None:
    store = store_at(case.path)
    with case.refusing("open"):
        await store.open()
        stream = await _stream(store)
        for first in (11, 31):
            await case.write(store, f"trim {first}", Trim(stream=stream.id, epoch=stream.epoch, first=Seq(first)))
    await store.close()


async def _judge_trimmed(store: SQLiteStore, case: Case) -> None:
    stream = await _stream(store)
    least = max([1, *(int(what.split()[1]) for what in case.done if what.startswith("trim"))])
    assert stream.first in {1, 11, 31}
    assert stream.first >= least
    found = await read_all(store, stream.id, after=stream.first - 1)
    assert found == [f"old {n}" for n in range(stream.first, OLD + 1)]


async def _compact(case: Case) -> None:
    store = store_at(case.path)
    with case.refusing("open"):
        await store.open()
        stream = await _stream(store)
        with case.refusing("compact"):
            while await store.compact(stream.id):
                pass
    await store.close()


# --- migration, backup ------------------------------------------------------------------------------------------------


async def _old_schema(path: Path) -> None:
    connection = Connection(path, LIMITS, full=False)
    migrate(SQLiteTarget(connection), load_migrations("sqlite")[:1], 1)
    connection.close()


async def _open(case: Case) -> None:
    store = store_at(case.path)
    with case.refusing("open"):
        await store.open()
    await store.close()


async def _judge_schema(store: SQLiteStore, case: Case) -> None:
    if await store.get(ALICE, "a") is None:
        await create(store, "a", messages=[encoded("x")])
    assert await read_all(store, (await _stream(store)).id) == ["x"]


def _target(case: Case) -> Path:
    return case.path.with_suffix(".copy")


async def _back_up(case: Case) -> None:
    _target(case).unlink(missing_ok=True)
    with case.refusing("backup"):
        back_up(case.path, _target(case), LIMITS)


async def _judge_backup(store: SQLiteStore, case: Case) -> None:
    await _judge_messages(store, case)
    target = _target(case)
    assert target.exists() == ("backup" in case.done)
    assert not target.with_name(target.name + ".partial").exists()
    if target.exists():
        sound(target)
        copy = store_at(target)
        await copy.open()
        await _judge_messages(copy, case)
        await copy.close()


_MESSAGES = [(f"new {number}", None) for number in range(4)]
WORKS = {
    "append": Work(_with_stream, _appending([*_MESSAGES]), _judge_messages),
    "close": Work(_with_stream, _appending([("last", None), ("", Close(StreamState.COMPLETED))]), _judge_messages),
    "trim": Work(_with_stream, _trim, _judge_trimmed),
    "compaction": Work(_with_stream, _compact, _judge_messages),
    "migration": Work(_old_schema, _open, _judge_schema),
    "backup": Work(_with_stream, _back_up, _judge_backup),
}


def _copy(template: Path, path: Path) -> None:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    shutil.copy(template, path)


async def attempt_on_copy(
    name: str, template: Path, directory: Path, disk: FaultDisk, plant: Callable[[], None]
) -> Case:
    """Copy the prepared database, plant the fault, do the work, and heal the disk."""
    path = directory / f"{name}.db"
    _copy(template, path)
    case = Case(path)
    plant()
    try:
        await WORKS[name].carry_out(case)
    finally:
        disk.heal()
    return case
