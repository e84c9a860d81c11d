"""What `verify` believes besides the database: signed checkpoints, as a file has them and as somebody kept them elsewhere.

It judges the file itself too: notes that are missing, moved, or not signed. It never writes.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from unbroken.checkpoints.book import FILE_NAME, Entry, Unsound, read_book, read_note
from unbroken.checkpoints.checkpoint import Checkpoint
from unbroken.checkpoints.compare import Comparison, compare
from unbroken.checkpoints.notes import Verifier
from unbroken.cli.exits import Exit
from unbroken.cli.output import clean, print_json
from unbroken.errors import NotFoundError
from unbroken.messages import StreamInfo
from unbroken.streams import Streams

__all__ = ["Evidence"]


class Evidence:
    """The checkpoints whose signature holds, and what is wrong with the file of them."""

    def __init__(self) -> None:
        self._checkpoints: dict[int, list[Checkpoint]] = defaultdict(list)
        self._faults: list[str] = []
        self._met: set[int] = set()

    @classmethod
    def load(cls, directory: Path, key: str, kept: tuple[Path, ...]) -> Evidence:
        """Read everything; InvalidError for what is no key, NotFoundError where there is no file."""
        evidence, verifier = cls(), Verifier.parse(key)
        path = directory / FILE_NAME
        notes: dict[int, bytes] = {}
        for found in read_book(_there(path), verifier):
            if isinstance(found, Unsound):
                evidence._faults.append(f"note {found.number} {found.reason}")
            else:
                notes[found.checkpoint.serial] = found.digest
                evidence._take(found.checkpoint)
        for file in kept:
            entry = read_note(_there(file).read_bytes().rstrip(b"\n") + b"\n", verifier)
            if isinstance(entry, Entry):
                evidence._faults += _kept(entry, notes, file)
                evidence._take(entry.checkpoint)
            else:
                evidence._faults.append(f"the note in {file} {entry}")
        return evidence

    def _take(self, checkpoint: Checkpoint) -> None:
        self._checkpoints[checkpoint.epoch].append(checkpoint)

    def meet(self, stream: StreamInfo) -> None:
        """There is this stream."""
        self._met.add(stream.epoch)

    async def compare(self, streams: Streams, stream: StreamInfo) -> Comparison:
        """Hold a stream against its checkpoints."""
        return await compare(streams, stream, self._checkpoints.get(stream.epoch, ()))

    def tell(self, *, as_json: bool, everything: bool) -> Exit:
        """Say what is wrong with the file; after `everything` was compared also how many streams are not there."""
        for fault in self._faults:
            if as_json:
                print_json({"checkpoints": fault, "ok": False})
            else:
                sys.stdout.write(f"checkpoints: {clean(fault)}\n")
        gone = len(self._checkpoints.keys() - self._met) if everything else 0
        if gone and as_json:
            print_json({"checkpoints": "streams that are not there", "count": gone, "ok": True})
        elif gone:
            sys.stdout.write(f"checkpoints: of {gone} streams that are not there: deleted, or taken away\n")
        return Exit.TAMPERED if self._faults else Exit.OK


def _kept(entry: Entry, notes: dict[int, bytes], file: Path) -> list[str]:
    serial = entry.checkpoint.serial
    if notes.get(serial) == entry.digest:
        return []
    if serial > max(notes, default=0):
        return [f"the note in {file} has serial {serial}, and the file ends before it: it was rolled back"]
    return [f"the note in {file} is not the one that the file has with serial {serial}"]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    return path
