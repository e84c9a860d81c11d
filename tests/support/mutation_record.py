"""Owns the record of what became of mutations, so that a run that was interrupted is gone on with.

`tests.mutations` writes it where it is asked to. What was found in another state of the code or of the tests counts for
nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from tests.support.mutating import Mutation, Outcome, Verdict

__all__ = ["Record"]


class _Line(msgspec.Struct):
    key: str
    name: str
    outcome: Outcome


class Record:
    """The lines of one file, one JSON object for each mutation that was tried; without a file nothing is kept."""

    def __init__(self, path: Path | None, folder: Path) -> None:
        self._path = path
        self._tree = _digest_of_tree(folder)
        data = path.read_bytes() if path is not None and path.exists() else b""
        lines = [msgspec.json.decode(line, type=_Line) for line in data.splitlines()]
        killed = [line for line in lines if line.outcome.verdict is Verdict.KILLED]
        self._killed = {line.key: line.outcome for line in killed}
        self._noticed = {line.name: line.outcome.by for line in killed}

    def killed(self, mutation: Mutation) -> Outcome | None:
        """How the mutation was killed before by the same tests in the same tree, if it was."""
        return self._killed.get(self._key(mutation))

    def noticed(self, mutation: Mutation) -> str:
        """The test that noticed it last time, in whatever tree, if that is one of its tests; it is worth trying first."""
        by = self._noticed.get(mutation.name, "")
        return by if by.startswith(mutation.tests) else ""

    def add(self, mutation: Mutation, outcome: Outcome) -> None:
        """Write down at once what became of the mutation."""
        if self._path is not None:
            line = _Line(self._key(mutation), mutation.name, outcome)
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")

    def _key(self, mutation: Mutation) -> str:
        return hashlib.sha256(self._tree + msgspec.json.encode(mutation)).hexdigest()


def _digest_of_tree(folder: Path) -> bytes:
    """Of the product and its tests, but for the lists of mutations themselves."""
    digest = hashlib.sha256()
    for part in ("src", "tests"):
        for file in sorted((folder / part).rglob("*")):
            if (
                file.is_file()
                and file.suffix != ".pyc"
                and not (file.parent.name == "tests" and file.name.startswith("mutations"))
            ):
                content = hashlib.sha256(file.read_bytes()).digest()
                digest.update(str(file.relative_to(folder)).encode() + b"\0" + content)
    return digest.digest()
