"""The embedded store: one SQLite file, written by one thread, readable by many, shared by several processes."""

from unbroken.store.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
