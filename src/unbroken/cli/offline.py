"""A store without a server: what `verify` and `doctor` read when they are given a database file.

It opens what exists, and never makes a database where there was none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from unbroken.clock import SystemClock
from unbroken.errors import InvalidError, NotFoundError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.sealing import Keyring
from unbroken.streams import Streams

__all__ = ["database_path", "local_path", "opened"]

PREFIX = "sqlite:///"
OFFLINE = replace(DEFAULT_LIMITS, store_ballast_bytes=0)
"""Nothing is made beside a file that is only looked at."""


def database_path(url: str) -> Path:
    """The file that `sqlite:///FILE` names; `InvalidError` for another store, `NotFoundError` when there is none."""
    if not url.startswith(PREFIX) or len(url) == len(PREFIX):
        raise InvalidError("a store without a server is sqlite:///FILE", field="store")
    path = Path(unquote(url.removeprefix(PREFIX)))
    if not path.is_file():
        raise NotFoundError(f"there is no database {path}", store=url)
    return path


def local_path(database: str) -> Path:
    """The file that is meant by `FILE` or by `sqlite:///FILE`."""
    return Path(unquote(database.removeprefix(PREFIX))) if database.startswith(PREFIX) else Path(database)


@asynccontextmanager
async def opened(url: str, ring: Keyring | None = None) -> AsyncIterator[Streams]:
    """The streams of an existing database, for reading."""
    from unbroken.log import Log
    from unbroken.observe.metrics import Metrics
    from unbroken.server.app import open_store

    database_path(url)
    store = open_store(url, limits=OFFLINE, wrapping=None if ring is None else ring.wrapping)
    await store.open()
    try:
        log = Log(store, limits=OFFLINE, metrics=Metrics())
        yield Streams(log, store, limits=OFFLINE, clock=SystemClock())
    finally:
        await store.close()
