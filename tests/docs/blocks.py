"""The fenced blocks of the documents, so that tests can run what readers will paste.

test_examples.py and test_links.py read the documents through it. It runs nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks", "prose"]

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its document, its number among those of its language there, and what it holds."""

    document: str
    language: str
    number: int
    text: str

    @property
    def key(self) -> str:
        return f"{self.document} {self.language} {self.number}"


def blocks(document: str) -> list[Block]:
    """All fenced blocks of a document, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, f"a fence of {document} is not closed"
    counts: dict[str, int] = {}
    found = []
    for language, content in _FENCE.findall(text):
        counts[language] = counts.get(language, 0) + 1
        found.append(Block(document, language, counts[language], content))
    return found


def prose(document: str) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))
