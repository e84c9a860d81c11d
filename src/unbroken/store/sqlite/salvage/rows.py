"""What of a damaged database's rows can be believed: chunks by their own checksum, everything else by its page's.

`salvage` builds a new database from it. It reads each page once, remembers where chunks are, and decodes them when asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from unbroken.errors import CorruptError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamId
from unbroken.store.base import Batch
from unbroken.store.chunks import ChunkRow, decode_chunk, key_seq
from unbroken.store.entry import Entry
from unbroken.store.migrate import load_migrations, migrate
from unbroken.store.sealing import Keyring, StreamKey
from unbroken.store.sqlite.connection import Connection, Row, Value
from unbroken.store.sqlite.rows import entry_from_row, entry_without_texts
from unbroken.store.sqlite.salvage.pages import FREE, PageFile
from unbroken.store.sqlite.salvage.records import TABLE_LEAF, cells, page_kind
from unbroken.store.sqlite.schema import SQLiteTarget
from unbroken.store.sqlite.tables import QUERIES

__all__ = ["Found", "Place", "read_rows"]

SESSION_COLUMNS = 8
_KEY_TYPES = [type(None), int, bytes]
STREAM_COLUMNS_FIRST = 33
"""How many the first release had; migrations add more behind them."""
CHUNK_COLUMNS_FIRST = 5
_CHUNK_TYPES = [int, int, int, bytes, bytes]
_PRODUCER_TYPES = [int, str, int, int, int, int]
_REVOCATION_TYPES = [type(None), str, str, str, int]
TABLES = frozenset({"session", "stream", "producer", "counter", "garbage", "stream_key", "token", "revocation", ""})
TOKEN_COLUMNS = 11
_NAMES_OF_OURS = {"migration", "stream", "chunk"}
"""Tables that a database has which is Unbroken's."""
_STREAM_ORDER = [name.strip() for name in QUERIES["stream_by_id"].removeprefix("SELECT ").split(" FROM ")[0].split(",")]


class Place(NamedTuple):
    """Where a sound chunk lies, and which messages it holds."""

    first: Seq
    last: Seq
    page: int
    key: int


@dataclass(slots=True)
class Found:
    """The rows that can be believed, and the tables of which some may be missing."""

    pages: PageFile
    ring: Keyring | None = None
    keys: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """By stream: its epoch and its wrapped key."""
    stream_rows: list[tuple[Value, ...]] = field(default_factory=list)
    streams: dict[StreamId, Entry] = field(default_factory=dict)
    sessions: list[list[Value]] = field(default_factory=list)
    producers: list[list[Value]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    garbage: set[int] = field(default_factory=set)
    tokens: list[list[Value]] = field(default_factory=list)
    revocations: list[list[Value]] = field(default_factory=list)
    keyless: set[StreamId] = field(default_factory=set)
    """Streams whose key is lost, and with it what they held."""
    chunks: dict[StreamId, list[Place]] = field(default_factory=lambda: defaultdict(list))
    damaged: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By table: its pages that do not verify. Under "" are those that nobody knows the table of."""

    named: bool = False
    """Whether the file's schema says that it is one of Unbroken's databases."""

    @property
    def recognised(self) -> bool:
        """Whether anything of it is certainly Unbroken's: the schema, or rows that a checksum vouches for."""
        rows = (self.sessions, self.producers, self.counters, self.tokens, self.revocations, self.keys)
        return self.named or bool(self.streams or self.chunks) or (self.pages.checked and any(rows))

    def batch(self, place: Place) -> Batch:
        """The messages of a chunk."""
        for row in _chunks(self.pages, place.page):
            if row.key == place.key:
                return decode_chunk(row, self)
        raise AssertionError("the file was changed meanwhile")

    def reading(self, stream: int) -> StreamKey | None:
        """As `KeySource`."""
        if stream not in self.keys:
            raise CorruptError(f"the key of stream {stream} is lost", stream=stream)
        return None if self.ring is None else self.ring.unwrapped(self.keys[stream][1], stream, self.keys[stream][0])


class _Schema(NamedTuple):
    roots: dict[int, str]
    stream_columns: list[str]
    named: bool
    """Whether it is the file's own."""


def read_rows(pages: PageFile, scratch: Path, ring: Keyring | None = None) -> Found:
    """Everything of `pages` that verifies. `scratch` is a place for an empty database of the same schema."""
    schema = _schema(pages, scratch)
    found = Found(pages, ring, named=schema.named)
    for number in range(1, pages.count + 1):
        if pages.is_map(number):
            if not pages.sound(number):
                found.damaged["map"].append(number)
            continue
        owner = number if number in schema.roots else pages.owner(number)
        if owner == FREE:
            continue
        table = "" if owner is None else schema.roots.get(owner, "index")
        if not pages.sound(number):
            found.damaged[table].append(number)
        if table in {"chunk", ""}:
            _take_chunks(found, number)
        if table in TABLES and pages.sound(number):
            for row_id, values in cells(pages.page(number), number, pages.usable, pages.page):
                _take(
                    found, table or _looks_like(values, schema.stream_columns), (row_id, values), schema.stream_columns
                )
    for row in found.stream_rows:
        with suppress(ValueError):  # it only looks like a stream
            _take_stream(found, row)
    return found


def _take_stream(found: Found, row: Row) -> None:
    try:
        entry = entry_from_row(row, found)
    except CorruptError:
        entry = entry_without_texts(row)
        found.keyless.add(entry.fixed.id)
        found.chunks.pop(entry.fixed.id, None)
    found.streams[entry.fixed.id] = entry


def _looks_like(values: list[Value], stream_columns: list[str]) -> str:
    """The table of a row on a page of which nobody knows the table. A row has the columns of the time when it was written."""
    types = [type(value) for value in values]
    if types == _PRODUCER_TYPES:
        return "producer"
    if types == [str, int]:
        return "counter"
    if types == [type(None), int]:
        return "garbage"
    if len(values) == TOKEN_COLUMNS:
        return "token"
    if types[:5] == _REVOCATION_TYPES and len(values) == 6:
        return "revocation"
    if types == _KEY_TYPES:
        return "stream_key"
    if STREAM_COLUMNS_FIRST <= len(values) <= len(stream_columns):
        return "stream"
    return "session" if len(values) == SESSION_COLUMNS else ""


def _schema(pages: PageFile, scratch: Path) -> _Schema:
    """Where the tables begin: as the file itself says, else in the pages where every database of ours has them."""
    connection = Connection(scratch, DEFAULT_LIMITS, full=False)
    try:
        migrate(SQLiteTarget(connection), load_migrations("sqlite"), 0)
        rows = connection.all("SELECT rootpage, name, tbl_name, type FROM sqlite_schema WHERE rootpage > 0")
        columns = [str(row[1]) for row in connection.all("PRAGMA table_info(stream)")]
    finally:
        connection.close()
    roots = {str(name): cast("int", root) for root, name, _, kind in rows if kind == "table"}
    named: set[str] = set()
    for number in range(1, pages.count + 1):
        if pages.owner(number) == 1 and pages.sound(number):
            for _, values in cells(pages.page(number), number, pages.usable, pages.page):
                if len(values) == 5 and values[0] == "table" and values[1] in roots and isinstance(values[3], int):
                    roots[str(values[1])] = values[3]
                    named.add(str(values[1]))
    return _Schema({root: name for name, root in roots.items()}, columns, named >= _NAMES_OF_OURS)


def _chunks(pages: PageFile, number: int) -> Iterable[ChunkRow]:
    page = pages.page(number)
    if page_kind(page, number) != TABLE_LEAF:
        return
    for row_id, values in cells(page, number, pages.usable, pages.page):
        types = [type(value) for value in values[1:]]
        if types[:CHUNK_COLUMNS_FIRST] == _CHUNK_TYPES and types[CHUNK_COLUMNS_FIRST:] in ([], [type(None)], [bytes]):
            _, *parts = values
            yield ChunkRow(row_id, *cast("tuple[int, int, int, bytes, bytes, bytes | None]", tuple(parts)))


def _take_chunks(found: Found, number: int) -> None:
    for row in _chunks(found.pages, number):
        try:
            batch = decode_chunk(row, sealed=True)
        except CorruptError:
            continue
        place = Place(batch.first, batch.last, number, row.key)
        found.chunks[StreamId(row.key >> 32)].append(place)
        assert key_seq(row.key) == batch.last


def _take(found: Found, table: str, row: tuple[int, list[Value]], stream_columns: list[str]) -> None:
    row_id, values = row
    match table:
        case "stream":
            named = dict(zip(stream_columns, [row_id, *values[1:]], strict=False))
            found.stream_rows.append(tuple(named.get(name) for name in _STREAM_ORDER))
        case "session":
            found.sessions.append([row_id, *values[1:]])
        case "producer":
            found.producers.append(values)
        case "counter":
            found.counters[str(values[0])] = cast("int", values[1])
        case "stream_key":
            found.keys[row_id] = (cast("int", values[1]), cast("bytes", values[2]))
        case "garbage":
            found.garbage.add(row_id)
        case "token":
            found.tokens.append([row_id, *values[1:]])
        case "revocation":
            found.revocations.append([row_id, *values[1:]])
        case _:
            return
