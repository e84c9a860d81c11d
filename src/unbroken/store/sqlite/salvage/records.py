"""SQLite's format of rows: what lies on one page of a table or an index. Pure; whatever does not fit is left out.

It is the format of https://www.sqlite.org/fileformat.html, as far as our tables use it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from unbroken.store.sqlite.connection import Value

__all__ = ["TABLE_LEAF", "cells", "page_kind"]

TABLE_LEAF = 13
_INDEX_LEAF, _INDEX_INNER = 10, 2
_KINDS = frozenset({TABLE_LEAF, _INDEX_LEAF, _INDEX_INNER})
_HEADER_OF_FILE = 100
_SIZES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}
Fetch = Callable[[int], bytes]


def page_kind(page: bytes, number: int) -> int:
    """The kind of b-tree page."""
    return page[_HEADER_OF_FILE if number == 1 else 0]


def cells(page: bytes, number: int, usable: int, fetch: Fetch) -> Iterator[tuple[int, list[Value]]]:
    """The rows on a page: (row id, values); for a table without row ids the id is 0. `fetch` gives overflow pages.

    Of what only says that it is so large, as much is looked at as can lie on one page.
    """
    start = _HEADER_OF_FILE if number == 1 else 0
    kind = page[start]
    if kind not in _KINDS:
        return
    first = start + (12 if kind == _INDEX_INNER else 8)
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    places = (int.from_bytes(page[at : at + 2], "big") for at in range(first, min(first + 2 * count, usable - 1), 2))
    for place in dict.fromkeys(places):
        try:
            yield _cell(page, place, kind, usable, fetch)
        except (IndexError, struct.error, UnicodeDecodeError, ValueError):
            continue


def _cell(page: bytes, at: int, kind: int, usable: int, fetch: Fetch) -> tuple[int, list[Value]]:
    row_id = 0
    if kind == _INDEX_INNER:
        at += 4
    size, at = _varint(page, at)
    if kind == TABLE_LEAF:
        row_id, at = _varint(page, at)
    if not 0 < size <= 2**31:
        raise ValueError("no row is that large")
    return row_id, _values(_payload(page, at, size, _local(size, kind, usable), usable, fetch))


def _local(size: int, kind: int, usable: int) -> int:
    """How much of a row lies on its own page."""
    most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    fitting = least + (size - least) % (usable - 4)
    return fitting if fitting <= most else least


def _payload(page: bytes, at: int, size: int, local: int, usable: int, fetch: Fetch) -> bytes:
    parts, left = [page[at : at + local]], size - local
    following = int.from_bytes(page[at + local : at + local + 4], "big") if left else 0
    seen = {0}
    while left > 0:
        if following in seen:
            raise ValueError("the rest of the row is missing, or goes round in a circle")
        seen.add(following)
        more = fetch(following)
        parts.append(more[4 : 4 + min(left, usable - 4)])
        left -= usable - 4
        following = int.from_bytes(more[:4], "big")
    payload = b"".join(parts)
    if len(payload) != size:
        raise ValueError("the row is cut off")
    return payload


def _values(payload: bytes) -> list[Value]:
    size, at = _varint(payload, 0)
    values: list[Value] = []
    body = size
    while at < size:
        kind, at = _varint(payload, at)
        length = _SIZES[kind] if kind in _SIZES else (kind - 12) // 2 if kind >= 12 else -1
        raw = payload[body : body + length]
        if length < 0 or len(raw) != length:
            raise ValueError("a value is cut off")
        body += length
        values.append(_value(kind, raw))
    return values


def _value(kind: int, raw: bytes) -> Value:
    if kind == 0:
        return None
    if kind == 7:
        return float(struct.unpack(">d", raw)[0])
    if kind in {8, 9}:
        return kind - 8
    if kind < 7:
        return int.from_bytes(raw, "big", signed=True)
    return raw.decode() if kind % 2 else raw


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            value = value << 8 | byte
            return (value - 2**64 if value >= 2**63 else value), at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    raise AssertionError("unreachable")
