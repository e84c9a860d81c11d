"""Connections to a database behind the store's back, which keep its pages' checksums as the store's own do."""

from __future__ import annotations

from pathlib import Path

import apsw

from unbroken.store.sqlite.page_checksums import checking_vfs

__all__ = ["connect"]


def connect(path: Path) -> apsw.Connection:
    """A connection for whoever changes rows; a plain one would leave pages that count as damaged."""
    return apsw.Connection(str(path), vfs=checking_vfs())
