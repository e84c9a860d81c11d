"""Every way to tamper with a real database, what `unbroken verify` says of it, and what it can say only with checkpoints.

Rows are changed by somebody skilled, who mends every checksum; where that somebody owns the database and writes everything
anew, only a checkpoint kept elsewhere shows it.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.secrets.conftest import files_with
from tests.integration.store.opening import ENCRYPTED, KEY_LINE, behind, flipped, keyed
from tests.support.parts import ALICE, ManualClock, running_parts, texts
from unbroken.checkpoints.book import FILE_NAME, Book
from unbroken.checkpoints.keeper import CheckpointKeeper
from unbroken.checkpoints.notes import generate, load_signer
from unbroken.cli.app import execute
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, Seq, StreamState, join_encoded, split_encoded
from unbroken.protocol.chain import LEAF_MARK_BYTES, erased, leaf_marks, links
from unbroken.protocol.salts import Salts
from unbroken.requests import AppendOptions
from unbroken.store.base import Batch, Close, Durability, Producer
from unbroken.store.chunks import encode_chunk
from unbroken.store.sealing import StreamKey
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.reader import Reader
from unbroken.store.sqlite.rows import sealed_salts
from unbroken.store.sqlite.tables import stored_batches

pytestmark = pytest.mark.scenario("INTEG-001")

LIMITS = replace(DEFAULT_LIMITS, store_ballast_bytes=0)
TAMPERED = 4
SIZES = (5, 1, 10)
"""Messages of each append to the stream a; checkpoints are behind the second and the third."""


@dataclass(frozen=True)
class Place:
    """A database, its checkpoints, and the key that has signed them."""

    directory: Path
    key: str

    @property
    def database(self) -> Path:
        return self.directory / "unbroken.db"

    @property
    def notes(self) -> Path:
        return self.directory / "notes" / FILE_NAME


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The stream `a`, which is open, and `ended`, which is not."""
    directory = tmp_path_factory.mktemp("tampering")
    place = Place(directory, str(generate(directory / "key", "example.com/fake")))
    asyncio.run(write(place))
    return place


async def write(place: Place) -> None:
    store, clock = keyed(SQLiteStore(place.database, durability=Durability.PROCESS, limits=LIMITS)), ManualClock()
    async with running_parts(store, limits=LIMITS, clock=clock) as parts:
        book = Book(place.notes.parent, load_signer(place.directory / "key"))
        book.open()
        keeper = CheckpointKeeper(store, parts.log, book, limits=LIMITS, clock=clock)
        streams, number = {name: await parts.stream(name) for name in ("a", "ended")}, 0
        for size in SIZES:
            messages = [NewMessage(kind="token", text=f"no {number + n:03}.") for n in range(1, size + 1)]
            producer = Producer(id="worker", epoch=1, seq=SIZES.index(size))
            await parts.streams.append_durably(streams["a"], messages, AppendOptions(producer=producer))
            number += size
            if size != SIZES[0]:
                await keeper.step(everything=True)
        await parts.streams.append_durably(streams["ended"], texts("one", "two"))
        close = AppendOptions(close=Close(StreamState.COMPLETED))
        await parts.streams.append_durably(streams["ended"], texts("three"), close)
        await keeper.step(everything=True)


@pytest.fixture
def place(original: Place, tmp_path: Path) -> Place:
    """A copy of it all, to be tampered with."""
    shutil.copytree(original.directory, tmp_path / "copy")
    return Place(tmp_path / "copy", original.key)


@dataclass
class Found:
    """What `verify --json` said: of streams by their names, and of the rest."""

    code: int
    streams: dict[str, dict[str, Any]]
    rest: list[dict[str, Any]]

    def bad(self, name: str = "a") -> tuple[int | None, int | None, str | None]:
        row = self.streams[name]
        assert row["ok"] is (row["bad"] is None)
        return row["bad"], row["bad_last"], row.get("reason")


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Found]:
    if ENCRYPTED:
        monkeypatch.setenv("UNBROKEN_ENCRYPTION_KEY", KEY_LINE)

    def run(place: Place, *arguments: str, checkpoints: bool = False) -> Found:
        trusted = ["--checkpoints", str(place.notes.parent), "--key", place.key] if checkpoints else []
        command = ["verify", "--all", "--json", "--store", f"sqlite:///{place.database}", *trusted, *arguments]
        code = execute(command)
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        streams = {row["stream"]: row for row in rows if "stream" in row}
        return Found(code, streams, [row for row in rows if "stream" not in row])

    return run


Verify = Callable[..., Found]


# --- how to tamper -----------------------------------------------------------------------------------------------------


class Forger:
    """Somebody who may write the file, knows how it is made, and has the key where it is encrypted."""

    def __init__(self, path: Path, name: str = "a") -> None:
        self.db = behind(path)
        info = Reader(self.db).get(ALICE, name)
        assert info is not None
        self.stream, self.genesis, self.salts = info.id, info.genesis, Salts(info.salts)

    def batches(self) -> list[Batch]:
        return list(stored_batches(self.db, self.stream, Seq(0)))

    def keep(self, batches: Sequence[Batch], *, head: bool = True) -> None:
        """Put these in the place of all, with sound checksums, and the stream's head where they lead."""
        self.db.run("DELETE FROM chunk WHERE id >> 32 = ?", (self.stream,))
        rows = [encode_chunk(self.stream, batch, key=self.key) for batch in batches]
        self.db.many("INSERT INTO chunk (id, n, flags, crc, hash, body, marks) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        if head:
            last = (batches[-1].last, batches[-1].hash) if batches else (0, self.genesis)
            self.db.run("UPDATE stream SET head = ?, hash = ? WHERE id = ?", (*last, self.stream))

    def write_anew(self, messages: list[bytes]) -> None:
        """A whole new log, all of whose hashes are right, stored as one."""
        value, leaves = links(self.genesis, 1, messages, self.salts)
        body = join_encoded(messages)
        self.keep([Batch(Seq(1), Seq(len(messages)), body, value, marks=leaf_marks(leaves))] if messages else [])

    @property
    def key(self) -> StreamKey | None:
        return self.db.keys.reading(self.stream)

    @property
    def messages(self) -> list[bytes]:
        return [message for batch in self.batches() for message in split_encoded(batch.body)]


def edit(pattern: bytes, to: bytes, *, rehash: bool = False) -> Callable[[Forger], None]:
    """Change what matches; with `rehash` also the marks and the chain's value beside it."""

    def tamper(forger: Forger) -> None:
        before, changed = forger.genesis, []
        for batch in forger.batches():
            body = re.sub(pattern, to, batch.body)
            if body != batch.body and rehash:
                value, leaves = links(before, batch.first, split_encoded(body), forger.salts)
                changed.append(replace(batch, body=body, hash=value, marks=leaf_marks(leaves)))
            else:
                changed.append(replace(batch, body=body))
            before = batch.hash
        forger.keep(changed, head=False)

    return tamper


def delete_row(forger: Forger) -> None:
    first, _, last = forger.batches()
    forger.keep([first, last], head=False)


def delete_message(forger: Forger) -> None:
    """Message 3; those behind it move up."""
    first, second, last = forger.batches()
    messages = split_encoded(first.body)
    marks = first.marks[: 2 * LEAF_MARK_BYTES] + first.marks[3 * LEAF_MARK_BYTES :]
    first = replace(first, last=Seq(4), body=join_encoded(messages[:2] + messages[3:]), marks=marks)
    forger.keep([first, moved(second, -1), moved(last, -1)])


def insert(forger: Forger) -> None:
    first, second, last = forger.batches()
    messages = split_encoded(first.body)
    messages.insert(2, messages[0])
    marks = first.marks[: 2 * LEAF_MARK_BYTES] + bytes(LEAF_MARK_BYTES) + first.marks[2 * LEAF_MARK_BYTES :]
    first = replace(first, last=Seq(6), body=join_encoded(messages), marks=marks)
    forger.keep([first, moved(second, 1), moved(last, 1)])


def moved(batch: Batch, by: int) -> Batch:
    return replace(batch, first=Seq(batch.first + by), last=Seq(batch.last + by))


def swap(forger: Forger) -> None:
    """Messages 2 and 4, with their marks."""
    first, *rest = forger.batches()
    messages = split_encoded(first.body)
    marks = [first.marks[at : at + LEAF_MARK_BYTES] for at in range(0, len(first.marks), LEAF_MARK_BYTES)]
    for row in (messages, marks):
        row[1], row[3] = row[3], row[1]
    forger.keep([replace(first, body=join_encoded(messages), marks=b"".join(marks)), *rest], head=False)


def zero_head(forger: Forger) -> None:
    forger.db.run("UPDATE stream SET hash = zeroblob(32) WHERE id = ?", (forger.stream,))


def other_name(forger: Forger) -> None:
    forger.db.run("UPDATE stream SET name = 'b' WHERE id = ?", (forger.stream,))


def cut_rows(forger: Forger) -> None:
    forger.keep(forger.batches()[:2], head=False)


def cut_off(forger: Forger) -> None:
    forger.keep(forger.batches()[:2])


def all_gone(forger: Forger) -> None:
    forger.write_anew([])


def rewrite(forger: Forger) -> None:
    messages = forger.messages
    messages[2] = messages[2].replace(b"no 003", b"no 999")
    forger.write_anew(messages)


def rewrite_the_end(forger: Forger) -> None:
    forger.write_anew([*forger.messages[:15], forger.messages[0]])


def rewrite_without_one(forger: Forger) -> None:
    messages = forger.messages
    forger.write_anew(messages[:3] + messages[4:])


def append_more(forger: Forger) -> None:
    forger.write_anew([*forger.messages, forger.messages[0]])


CASES: list[tuple[str, Callable[[Forger], None], tuple[int, int]]] = [
    ("a payload", edit(rb"no 003", rb"no 999"), (3, 3)),
    ("the payload of a message alone in its row", edit(rb"no 006", rb"no 999"), (6, 6)),
    ("the payload and every hash beside it", edit(rb"no 003", rb"no 999", rehash=True), (6, 6)),
    ("a time", edit(rb'(?<="time":)\d+(,"producer":"worker","text":"no 004)', rb"1\1"), (4, 4)),
    ("a kind", edit(rb'"token"(?=[^\n]*no 010)', b'"other"'), (10, 10)),
    ("a producer", edit(rb'"worker"(?=[^\n]*no 016)', b'"nobody"'), (16, 16)),
    ("a row deleted", delete_row, (6, 6)),
    ("a message deleted", delete_message, (3, 3)),
    ("a message inserted", insert, (3, 3)),
    ("two messages swapped", swap, (2, 2)),
    ("the head", zero_head, (7, 16)),
    ("the last rows deleted", cut_rows, (7, 7)),
]


@pytest.mark.parametrize(("tamper", "bad"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("checkpoints", [False, True])
def test_what_somebody_changed_is_named(
    place: Place, verify: Verify, tamper: Callable[[Forger], None], bad: tuple[int, int], checkpoints: bool
) -> None:
    tamper(Forger(place.database))
    found = verify(place, checkpoints=checkpoints)
    assert found.code == TAMPERED
    assert found.bad()[:2] == bad
    assert found.streams["ended"]["ok"], "and nothing else is named"


OWNER: list[tuple[str, Callable[[Forger], None], str, tuple[int, int, str]]] = [
    ("the tail cut off", cut_off, "a", (7, 16, "cut off")),
    ("everything cut off", all_gone, "a", (1, 16, "cut off")),
    ("written anew", rewrite, "a", (1, 6, "written anew")),
    ("the end written anew", rewrite_the_end, "a", (7, 16, "written anew")),
    ("written anew without one", rewrite_without_one, "a", (1, 6, "written anew")),
    ("appended behind the end", append_more, "ended", (4, 4, "appended behind the end of the stream")),
]


@pytest.mark.parametrize(("tamper", "name", "wrong"), [case[1:] for case in OWNER], ids=[case[0] for case in OWNER])
def test_what_its_owner_wrote_anew_shows_only_by_a_checkpoint_kept_elsewhere(
    place: Place, verify: Verify, tamper: Callable[[Forger], None], name: str, wrong: tuple[int, int, str]
) -> None:
    tamper(Forger(place.database, name))
    assert verify(place).code == 0, "every hash in the database is right"
    found = verify(place, checkpoints=True)
    assert (found.code, found.bad(name)) == (TAMPERED, wrong)


def test_nothing_was_changed(place: Place, verify: Verify) -> None:
    assert verify(place).code == 0
    found = verify(place, checkpoints=True)
    assert (found.code, found.rest) == (0, [])
    assert {name: (row["checked"], row["covered"]) for name, row in found.streams.items()} == {
        "a": (16, 16),
        "ended": (3, 3),
    }


def test_no_checkpoint_covers_what_stands_behind_messages_that_are_said_to_be_trimmed(
    place: Place, verify: Verify
) -> None:
    forger = Forger(place.database)
    batches = forger.batches()
    forger.db.run(
        "UPDATE stream SET first = 107, base_seq = 106, base_hash = ? WHERE id = ?", (batches[-2].hash, forger.stream)
    )
    value, leaves = links(batches[-2].hash, 107, split_encoded(batches[-1].body), forger.salts)
    forger.keep([replace(moved(batches[-1], 100), hash=value, marks=leaf_marks(leaves))])
    found = verify(place, checkpoints=True)
    assert (found.streams["a"]["ok"], found.streams["a"]["checked"]) == (True, 10)
    assert found.streams["a"]["covered"] == 16, "the last message that a checkpoint is of"


def test_a_stream_under_another_name_and_one_that_is_not_there(place: Place, verify: Verify) -> None:
    other_name(Forger(place.database))
    found = verify(place)
    assert (found.code, found.bad("b")[:2]) == (TAMPERED, (1, 1))
    forger = Forger(place.database, "ended")
    for table, column in (("chunk", "id >> 32"), ("stream", "id")):
        forger.db.run(f"DELETE FROM {table} WHERE {column} = ?", (forger.stream,))
    found = verify(place, checkpoints=True)
    assert found.rest == [{"checkpoints": "streams that are not there", "count": 1, "ok": True}]


@pytest.mark.parametrize(
    ("beginning", "bad"), [(False, (1, 5)), (True, (1, 1))], ids=["its messages", "its genesis too"]
)
def test_a_stream_with_the_chain_of_another_is_named(
    place: Place, verify: Verify, beginning: bool, bad: tuple[int, int]
) -> None:
    taken, forger = Forger(place.database), Forger(place.database, "ended")
    forger.keep(taken.batches())
    salts = sealed_salts(taken.salts.encoded, forger.key)
    forger.db.run("UPDATE stream SET salts = ? WHERE id = ?", (salts, forger.stream))
    if beginning:
        forger.db.run(
            "UPDATE stream SET genesis = ?, base_hash = ? WHERE id = ?", (*[taken.genesis] * 2, forger.stream)
        )
    found = verify(place)
    assert (found.code, found.bad("ended")[:2]) == (TAMPERED, bad)
    assert found.streams["a"]["ok"]


def test_the_key_that_signs_is_in_its_file_alone(place: Place) -> None:
    signer = load_signer(place.directory / "key")
    encoded = signer.secret_text().strip()[-40:]  # base64, of which a plus may be a part
    assert files_with(place.directory, encoded) == ["key"]
    assert files_with(place.directory, signer.seed) == []


@pytest.mark.parametrize("source", ["a", "ended"])
@pytest.mark.parametrize("fork_seq", [0, 2])
def test_a_stream_is_not_taken_for_a_fork_because_its_row_says_so(
    place: Place, verify: Verify, source: str, fork_seq: int
) -> None:
    """Whoever calls it one hides neither another name, nor a source that is itself or younger; looking for it ends."""
    forger = Forger(place.database, "ended")
    forked_from = Forger(place.database, source).stream
    forger.db.run(
        "UPDATE stream SET name = 'b', forked_from = ?, fork_seq = ? WHERE id = ?",
        (forked_from, fork_seq, forger.stream),
    )
    found = verify(place)
    assert found.code == TAMPERED
    assert (found.streams["a"]["ok"], found.streams["b"]["ok"]) == (True, False)


def test_a_page_that_another_program_wrote_is_named(place: Place, verify: Verify) -> None:
    with closing(sqlite3.connect(place.database, isolation_level=None)) as plain:
        plain.create_function("flipped", 1, flipped)
        plain.execute("UPDATE chunk SET body = flipped(body)")
    found = verify(place)
    assert found.code == TAMPERED
    assert any("page" in row and not row["ok"] for row in found.rest)


def test_what_was_erased_is_counted_and_everything_holds(place: Place, verify: Verify) -> None:
    forger = Forger(place.database)
    batches = forger.batches()
    messages = split_encoded(batches[0].body)
    _, leaves = links(forger.genesis, 1, messages, forger.salts)
    messages[1], messages[2] = erased(leaves[1], 1), erased(leaves[2], 1)
    forger.keep([replace(batches[0], body=join_encoded(messages)), *batches[1:]])
    salts = sealed_salts(forger.salts.without(2, 3).encoded, forger.key)
    forger.db.run("UPDATE stream SET salts = ? WHERE id = ?", (salts, forger.stream))
    found = verify(place, checkpoints=True)
    assert found.code == 0
    assert (found.streams["a"]["erased"], found.streams["a"]["covered"]) == (2, 16)


# --- the file of checkpoints -------------------------------------------------------------------------------------------


def pieces(place: Place) -> list[bytes]:
    """The file's notes, each with the empty line behind it."""
    return re.findall(rb"(?:[^\n]+\n)+\n(?:\xe2\x80\x94 [^\n]+\n)+\n", place.notes.read_bytes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda notes: [notes[0], *notes[2:]], "missing or moved"),
        (lambda notes: [notes[1], notes[0], *notes[2:]], "missing or moved"),
        (lambda notes: [notes[0].replace(b"\n6\n", b"\n5\n", 1), *notes[1:]], "not signed"),
        (
            lambda notes: [notes[0].replace(b"chain A", b"chain B", 1).replace(b"chain ", b"chain  ", 1), *notes[1:]],
            "not signed",
        ),
        (lambda notes: [notes[0], b"something\n\nelse\n", *notes[1:]], "no note"),
    ],
    ids=["removed", "moved", "size", "chain", "no note"],
)
def test_a_file_of_checkpoints_that_was_changed_is_told(
    place: Place, verify: Verify, change: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    notes = pieces(place)
    assert b"".join(notes) == place.notes.read_bytes()
    assert len(notes) == 3
    place.notes.write_bytes(b"".join(change(notes)))
    found = verify(place, checkpoints=True)
    assert found.code == TAMPERED
    assert any(said in row["checkpoints"] for row in found.rest), found.rest


def test_checkpoints_of_another_key_are_none(place: Place, verify: Verify, tmp_path: Path) -> None:
    other = replace(place, key=str(generate(tmp_path / "other", "example.com/fake")))
    found = verify(other, checkpoints=True)
    assert found.code == TAMPERED
    assert len([row for row in found.rest if "is not signed" in row["checkpoints"]]) == 3
    assert found.streams["a"]["covered"] == 0


def test_a_file_that_was_rolled_back_shows_by_a_note_kept_elsewhere(place: Place, verify: Verify) -> None:
    notes = pieces(place)
    kept = place.directory / "kept"
    kept.write_bytes(notes[1])
    place.notes.write_bytes(notes[0])
    cut_off(Forger(place.database))
    assert verify(place, checkpoints=True).code == 0, "both were rolled back together: nothing left here says so"
    found = verify(place, "--kept", str(kept), checkpoints=True)
    assert (found.code, found.bad()) == (TAMPERED, (7, 16, "cut off"))
    assert "rolled back" in found.rest[0]["checkpoints"]


def test_a_note_that_was_not_finished_is_left_out(place: Place, verify: Verify) -> None:
    with place.notes.open("ab") as file:
        file.write(pieces(place)[0][:150])
    assert verify(place, checkpoints=True).code == 0
    book = Book(place.notes.parent, load_signer(place.directory / "key"))
    latest, ended = book.open()
    assert [one.seq for one in latest.values()] == [16]
    assert len(ended) == 1
    assert len(b"".join(pieces(place))) == place.notes.stat().st_size, "and taken off by the next server"
