"""What listings of all stores have in common: filters, prefixes and the tokens that continue a page.

A token is opaque to callers and holds nothing but a position. Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from unbroken.errors import InvalidError
from unbroken.identity import Grant, Principal
from unbroken.messages import Seq, SessionInfo, StreamId, StreamInfo
from unbroken.store.base import Batch, Page, StreamFilter
from unbroken.store.entry import Entry
from unbroken.store.reading import Source, read

__all__ = [
    "Range",
    "covered",
    "covered_session",
    "matches",
    "page",
    "parse_position",
    "parse_token",
    "prefix_end",
    "ranges",
    "read_streams",
]

T = TypeVar("T")
Range = tuple[str, str, int | None]
"""Names from the first on and before the second, at an epoch or at any."""
ID_MAX = 2**63 - 1
_BEHIND_A_NAME = "\x01"
"""Behind a name and before every other one: names hold no control characters."""
BEHIND_ALL = "\U0010ffff" * 200
"""Behind every name, which may be shorter by far."""
_TOKEN = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_POSITION = re.compile(r"([1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,9})", re.ASCII)


def parse_token(token: str | None) -> int:
    """The row id that a page continues behind, newest first; a number above all of them at the start."""
    if token is None:
        return ID_MAX
    if not _TOKEN.fullmatch(token) or int(token) > ID_MAX:
        raise InvalidError("the page token is not one that this server gave", field="page")
    return int(token)


def parse_position(token: str | None) -> tuple[StreamId, Seq]:
    """The stream and the seq in it that a session's page continues behind."""
    if token is None:
        return StreamId(0), Seq(0)
    found = _POSITION.fullmatch(token)
    if found is None or int(found[1]) > ID_MAX:
        raise InvalidError("the page token is not one that this server gave", field="page")
    return StreamId(int(found[1])), Seq(int(found[2]))


def page(rows: Sequence[T], limit: int, row_id: Callable[[T], int]) -> Page[T]:
    """A page of at most `limit` of `rows`, which hold one more than that when there is more."""
    if len(rows) <= limit:
        return Page(tuple(rows), None)
    return Page(tuple(rows[:limit]), str(row_id(rows[limit - 1])))


def prefix_end(prefix: str) -> str | None:
    """The smallest string above every string that begins with `prefix`, by code point; None when there is none."""
    rest = prefix.rstrip("\U0010ffff")
    if not rest:
        return None
    code = ord(rest[-1]) + 1
    return rest[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


def covered(info: StreamInfo, among: tuple[Grant, ...] | None) -> bool:
    """Whether one of the grants speaks of the stream; None: all do."""
    return among is None or any(grant.covers(info.name, info.epoch) for grant in among)


def covered_session(session: SessionInfo, among: tuple[Grant, ...] | None) -> bool:
    """Whether one of the grants, by its prefix, speaks of the session; None: all do."""
    return among is None or any(grant.prefix and grant.covers(session.name) for grant in among)


def ranges(among: Sequence[Grant], prefix: str = "") -> list[Range]:
    """The names beginning with `prefix` that the grants speak of, and at which epoch."""
    found: list[Range] = []
    for grant in among:
        if not grant.prefix:
            if grant.name.startswith(prefix):
                found.append((grant.name, grant.name + _BEHIND_A_NAME, grant.epoch))
        elif grant.name.startswith(prefix) or prefix.startswith(grant.name):
            low = max(grant.name, prefix, key=len)
            found.append((low, prefix_end(low) or BEHIND_ALL, grant.epoch))
    return found


def matches(info: StreamInfo, principal: Principal, where: StreamFilter) -> bool:
    """Whether a listing of `principal` with that filter shows the stream."""
    return (
        (info.tenant, info.owner, info.deleted) == (principal.tenant, principal.subject, False)
        and where.session in {None, info.session}
        and (where.prefix is None or info.name.startswith(where.prefix))
        and where.kind in {None, info.kind}
        and where.state in {None, info.state}
        and (where.active is None or where.active is not info.state.terminal)
        and (where.run is None or where.run is (info.run is not None))
        and covered(info, where.among)
    )


def read_streams(
    source: Source, entries: Iterator[Entry], position: tuple[StreamId, Seq], *, messages_max: int, bytes_max: int
) -> Page[tuple[StreamInfo, Batch]]:
    """One page of the messages of `entries`, which come by ascending id, behind `position`."""
    items: list[tuple[StreamInfo, Batch]] = []
    token: str | None = None
    for entry in entries:
        after = position[1] if entry.fixed.id == position[0] else Seq(0)
        after = max(after, Seq(entry.fixed.first - 1))
        if after >= entry.head or entry.fixed.erased is not None:
            continue
        if messages_max < 1 or bytes_max < 1:
            return Page(tuple(items), token)
        found = read(source, entry, after, messages_max=messages_max, bytes_max=bytes_max)
        for batch in found.batches:
            items.append((found.stream, batch))
            messages_max -= batch.last - batch.first + 1
            bytes_max -= len(batch.body)
            after = batch.last
        token = f"{entry.fixed.id}.{after}"
        if after < entry.head:
            return Page(tuple(items), token)
    return Page(tuple(items), None)
