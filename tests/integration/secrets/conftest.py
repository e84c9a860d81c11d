"""Owns the search of files for what must not be in them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["files_with"]


def files_with(directory: Path, planted: str) -> list[str]:
    """The files below a directory that hold a text, also in pages that are free."""
    found = [path for path in directory.rglob("*") if path.is_file() and planted.encode() in path.read_bytes()]
    return sorted(path.name for path in found)
