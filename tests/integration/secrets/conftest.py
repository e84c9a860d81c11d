"""Owns the search of files for what must not be in them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["files_with"]


def files_with(directory: Path, planted: str | bytes) -> list[str]:
    """The files below a directory that hold a text, or bytes, also in pages that are free."""
    wanted = planted if isinstance(planted, bytes) else planted.encode()
    found = [path for path in directory.rglob("*") if path.is_file() and wanted in path.read_bytes()]
    return sorted(path.name for path in found)
