"""The file of checkpoints: notes one after the other, each of which names the one before it.

A server writes at its end and never anywhere else; `unbroken verify` reads it from the start. It trusts nothing that is not
signed, and tells what is wrong with a file instead of guessing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from unbroken.checkpoints.checkpoint import NOTHING_BEFORE, Checkpoint
from unbroken.checkpoints.notes import Signer, Verifier, text_of
from unbroken.errors import InvalidError

__all__ = ["FILE_NAME", "Book", "Entry", "Unsound", "read_book", "read_note"]

FILE_NAME = "checkpoints.txt"
_NOTE = re.compile("(?:[^\n]+\n)+\n(?:— [^\n]+\n)+\n".encode())
"""A note with the empty line that ends it in the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A checkpoint whose signature holds, and the hash of its note."""

    checkpoint: Checkpoint
    digest: bytes


@dataclass(frozen=True, slots=True)
class Unsound:
    """What is wrong with a note, or between it and the one before; `number` counts the file's notes from 1."""

    number: int
    reason: str


def read_book(path: Path, verifier: Verifier) -> Iterator[Entry | Unsound]:
    """Every note of the file in order. One that was not finished, at the very end, is left out: nobody was told of it."""
    previous: Entry | None = None
    for number, (note, whole) in enumerate(_notes(path), 1):
        if not whole:
            if b"\n\n" in note:
                yield Unsound(number, "is no note")
            return
        entry = read_note(note, verifier)
        if isinstance(entry, str):
            yield Unsound(number, entry)
            continue
        reason = _misplaced(entry.checkpoint, previous)
        if reason is not None:
            yield Unsound(number, reason)
        yield entry
        previous = entry


def read_note(note: bytes, verifier: Verifier) -> Entry | str:
    """The checkpoint of a note, or what is wrong with it."""
    text = note.decode("utf-8", "replace")
    if not verifier.signed(text):
        return f"is not signed by {verifier.name} ({verifier.id.hex()})"
    try:
        checkpoint = Checkpoint.parse(text_of(text))
    except InvalidError as error:
        return f"is {error}"
    if checkpoint.log != verifier.name:
        return f"is of another log than {verifier.name}"
    return Entry(checkpoint, sha256(note).digest())


def _misplaced(checkpoint: Checkpoint, previous: Entry | None) -> str | None:
    """Why a checkpoint does not follow the one before it in the file."""
    serial, digest = (0, NOTHING_BEFORE) if previous is None else (previous.checkpoint.serial, previous.digest)
    if checkpoint.serial != serial + 1:
        return f"has serial {checkpoint.serial} where {serial + 1} is next: notes are missing or moved"
    return None if checkpoint.previous == digest else "does not follow the note before it"


def _notes(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Pieces of the file, without the empty line that ends each, and whether each has the form of a note."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        match = _NOTE.match(data, at)
        if match is None:
            yield data[at:], False
            return
        yield match[0][:-1], True
        at = match.end()


class Book:
    """The end of a file of checkpoints. One thread at a time; blocks until what it wrote is on the disk."""

    def __init__(self, directory: Path, signer: Signer) -> None:
        self.path = directory / FILE_NAME
        self._signer = signer
        self._serial = 0
        self._digest = NOTHING_BEFORE
        self._size = 0

    def open(self) -> tuple[dict[int, Checkpoint], set[int]]:
        """Go to the end; the latest checkpoint of each stream that has not ended, by epoch, and the epochs of the ended ones.

        What was not finished at the end is taken off. `InvalidError` where anything in front of it does not hold: going on
        would hide it.
        """
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.path.touch(mode=0o644)  # whatever the umask: nobody else writes to it
        latest: dict[int, Checkpoint] = {}
        for entry in read_book(self.path, self._signer.verifier):
            if isinstance(entry, Unsound):
                raise InvalidError(f"{self.path}: note {entry.number} {entry.reason}", field="checkpoints")
            self._serial, self._digest = entry.checkpoint.serial, entry.digest
            latest[entry.checkpoint.epoch] = entry.checkpoint
        self._size = sum(len(note) + 1 for note, whole in _notes(self.path) if whole)
        os.truncate(self.path, self._size)
        ended = {epoch for epoch, checkpoint in latest.items() if checkpoint.ended is not None}
        for epoch in ended:
            del latest[epoch]
        return latest, ended

    @property
    def place(self) -> tuple[int, bytes]:
        """The serial of the next checkpoint, and what its `previous` is."""
        return self._serial + 1, self._digest

    @property
    def log(self) -> str:
        """The name of the log."""
        return self._signer.name

    def write(self, checkpoint: Checkpoint) -> None:
        """Sign `checkpoint` and put it at the end.

        OSError leaves the file as it was, or with an end that is taken off later; also where somebody else has written to it.
        """
        assert (checkpoint.serial, checkpoint.previous) == self.place
        note = self._signer.sign(checkpoint.text()).encode()
        with self.path.open("ab") as file:
            if file.tell() != self._size:
                raise OSError(f"{self.path} was written by somebody else")
            try:
                file.write(note + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, self._size)
                raise
        self._serial, self._digest = checkpoint.serial, sha256(note).digest()
        self._size += len(note) + 1
