"""The pages of a database file, read without SQLite, which refuses a file as a whole where one page is damaged.

`rows` takes its rows from here. A page is what the write-ahead log has of it, as far as that is whole; which table it belongs
to is told by the map of pages that a file in auto-vacuum mode keeps apart from the tree itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from unbroken.store.sqlite.page_checksums import PAGE_CHECKSUM_BYTES, page_is_sound

__all__ = ["FREE", "PageFile", "unsound_pages"]

PAGE_BYTES = 4096
FREE = -1
"""The owner of a page that nothing uses."""
_ROOT, _FREE, _BTREE = 1, 2, 5
_MAP_ENTRY = struct.Struct(">BI")
_FRAME = struct.Struct(">IIIIII")
_LOG_HEADER = struct.Struct(">IIIIIIII")
_LOG_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_LOCK_BYTE = 0x40000000
_PARENTS_MAX = 20


class PageFile:
    """The pages of the database at `path`, numbered from 1. With `believed` no checksum of a page is asked for."""

    def __init__(self, path: Path, *, believed: bool = False) -> None:
        self._believed = believed
        self._maps: dict[int, bool] = {}
        self._file = path.open("rb")
        self._log = _read_log(path.with_name(path.name + "-wal"))
        in_file = path.stat().st_size // PAGE_BYTES
        self.count = max([in_file, *self._log])
        first = self.page(1)
        self.checked = first[20] == PAGE_CHECKSUM_BYTES or self._any_sound()
        """Whether its pages carry checksums."""
        self.usable = PAGE_BYTES - PAGE_CHECKSUM_BYTES * self.checked

    def _any_sound(self) -> bool:
        """Page 1, which says so, may be the damaged one."""
        return any(page_is_sound(self.page(number)) for number in range(2, min(self.count, 50) + 1))

    def close(self) -> None:
        self._file.close()

    def page(self, number: int) -> bytes:
        """What the page holds; zeros beyond the end."""
        if number in self._log:
            return self._log[number]
        self._file.seek((number - 1) * PAGE_BYTES)
        return self._file.read(PAGE_BYTES).ljust(PAGE_BYTES, b"\0")

    def sound(self, number: int) -> bool:
        """Whether the page matches its checksum; True where it carries none, and in the log, which has sums of its own."""
        believed = self._believed or not self.checked or number in self._log
        return believed or page_is_sound(self.page(number))

    def owner(self, number: int) -> int | None:
        """The root page of the tree that a page belongs to, `FREE`, or None where nobody knows."""
        for _ in range(_PARENTS_MAX):
            if number < 2:
                return number or None  # the schema's own tree is not in the map
            at = self._map_page(number)
            if at not in self._maps:
                self._maps[at] = self.sound(at)
            if number == at or not self._maps[at]:
                return None
            kind, parent = _MAP_ENTRY.unpack_from(self.page(at), _MAP_ENTRY.size * (number - at - 1))
            if kind == _ROOT:
                return number
            if kind == _FREE:
                return FREE
            if kind != _BTREE:
                return None
            number = parent
        return None

    def is_map(self, number: int) -> bool:
        """Whether the page is one of the map itself."""
        return number > 1 and number == self._map_page(number)

    def _map_page(self, number: int) -> int:
        each = self.usable // _MAP_ENTRY.size + 1
        at = (number - 2) // each * each + 2
        return at + 1 if at == _LOCK_BYTE // PAGE_BYTES + 1 else at


def unsound_pages(path: Path) -> Iterator[int]:
    """The numbers of the pages of a database that do not match their checksums."""
    pages = PageFile(path)
    try:
        for number in range(1, pages.count + 1):
            if not pages.sound(number):
                yield number
    finally:
        pages.close()


def _read_log(path: Path) -> dict[int, bytes]:
    """The newest content of each page in the write-ahead log, up to its last whole commit."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    if len(data) < _LOG_HEADER.size:
        return {}
    magic, _, page_bytes, _, *salts, first, second = _LOG_HEADER.unpack_from(data)
    order = _LOG_MAGIC.get(magic)
    if order is None or page_bytes != PAGE_BYTES:
        return {}
    sums = _log_sums(data[:24], order, (0, 0))
    if sums != (first, second):
        return {}
    found: dict[int, bytes] = {}
    pending: dict[int, bytes] = {}
    for at in range(_LOG_HEADER.size, len(data) - _FRAME.size - PAGE_BYTES + 1, _FRAME.size + PAGE_BYTES):
        number, committed, *salt, one, other = _FRAME.unpack_from(data, at)
        page = data[at + _FRAME.size : at + _FRAME.size + PAGE_BYTES]
        sums = _log_sums(page, order, _log_sums(data[at : at + 8], order, sums))
        if salt != salts or sums != (one, other):
            break
        pending[number] = page
        if committed:
            found.update(pending)
            pending.clear()
    return found


def _log_sums(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for left, right in zip(words[::2], words[1::2], strict=True):
        first += left + second
        second += right + first
    return first % 2**32, second % 2**32
