# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb verify: recomputes hash chains, at the server or in a database file that no server uses.

A chain that does not hold, and stored data that fails its checksum, give exit code 4. It changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.exits import Exit, UsageError, report
from unbroken.cli.output import clean, note, print_json
from unbroken.errors import CorruptError, UnbrokenError

if TYPE_CHECKING:
    from typing import Protocol

    from unbroken.client import Verification

    class _Source(Protocol):
        """Where streams are verified."""

        async def names(self) -> list[str]: ...

        async def verify(self, name: str) -> Verification: ...


__all__ = ["verify"]

PAGE_ITEMS = 500


def verify(
    *name: str,
    all_streams: Annotated[bool, Parameter(name="--all", negative="")] = False,
    store: str | None = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Recompute the hash chains of streams and say where they break. Exits with 4 when one does.

    Args:
        name: The streams' names.
        all_streams: Verify every stream that you may see; of a store also every page of its file.
        store: Verify in this store (sqlite:///FILE) instead of asking a server.
    """
    if bool(name) == all_streams:
        raise UsageError("give the names of streams, or --all")
    pages = Exit.OK if store is None or name else _verify_pages(store, as_json=json)
    return max(pages, run_async(_verify(name, store, connection, as_json=json)))


def _verify_pages(url: str, *, as_json: bool) -> Exit:
    """Hold every page of a database file that no server uses against its checksum, and name those that do not match."""
    from unbroken.cli.offline import database_path
    from unbroken.store.sqlite.backup import in_use
    from unbroken.store.sqlite.salvage import unsound_pages

    path = database_path(url)
    if in_use(path):
        note("a server has the database open: its pages are not looked at, only its streams")
        return Exit.OK
    code = Exit.OK
    for page in unsound_pages(path):
        code = Exit.TAMPERED
        if as_json:
            print_json({"page": page, "ok": False})
        else:
            sys.stdout.write(f"page {page}: CORRUPT\n")
    return code


async def _verify(names: Sequence[str], store: str | None, connection: Connection, *, as_json: bool) -> int:
    from rich.console import Console
    from rich.progress import Progress

    code = Exit.OK
    async with _stored(store) if store is not None else _served(connection) as source:
        try:
            wanted = list(names) or await source.names()
        except CorruptError as error:
            return report(error, as_json=as_json)
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
            for name in progress.track(wanted, description="verifying"):
                try:
                    result = await source.verify(name)
                except UnbrokenError as error:
                    if not isinstance(error, CorruptError):
                        raise
                    code = report(error, as_json=as_json)
                    _tell(name, None, as_json=as_json)
                    continue
                _tell(name, result, as_json=as_json)
                code = code if result.ok else Exit.TAMPERED
    return code


def _tell(name: str, result: Verification | None, *, as_json: bool) -> None:
    if as_json:
        ok, checked = (False, 0) if result is None else (result.ok, result.checked)
        bad, bad_last = (None, None) if result is None else (result.bad, result.bad_last)
        last = "" if result is None else result.hash
        print_json({"stream": name, "ok": ok, "checked": checked, "bad": bad, "bad_last": bad_last, "hash": last})
    elif result is None:
        sys.stdout.write(f"{clean(name)}: CORRUPT\n")
    elif result.ok:
        erased = f", {result.erased} of them erased" if result.erased else ""
        sys.stdout.write(f"{clean(name)}: {result.checked} messages verified{erased}\n")
    else:
        sys.stdout.write(f"{clean(name)}: TAMPERED: {_stretch(result)} not what was appended\n")


def _stretch(result: Verification) -> str:
    """What can be told of where the damage is."""
    if result.bad_last is None or result.bad == result.bad_last:
        return f"message {result.bad} is"
    return f"in messages {result.bad} to {result.bad_last} something is"


@asynccontextmanager
async def _served(connection: Connection) -> AsyncIterator[_Source]:
    """Through a server."""

    class Served:
        async def names(self) -> list[str]:
            found: list[str] = []
            page: str | None = None
            while True:
                streams = await client.list(limit=PAGE_ITEMS, page=page)
                found += [view.stream for view in streams.streams]
                page = streams.next
                if page is None:
                    return found

        async def verify(self, name: str) -> Verification:
            return await client.verify(name)

    async with connection.client() as client:
        yield Served()


@asynccontextmanager
async def _stored(url: str) -> AsyncIterator[_Source]:
    """In a store that this process opens; the first message that fails its checksum ends a stream's verification."""
    from unbroken.cli.offline import opened
    from unbroken.client import Verification
    from unbroken.identity import Principal, Verb
    from unbroken.store.base import StreamFilter

    principal = Principal()

    class Stored:
        async def names(self) -> list[str]:
            found: list[str] = []
            page: str | None = None
            while True:
                streams = await parts.list(principal, StreamFilter(), limit=PAGE_ITEMS, page=page)
                found += [info.name for info in streams.items]
                page = streams.next
                if page is None:
                    return found

        async def verify(self, name: str) -> Verification:
            result = await parts.verify(await parts.get(principal, name, may=Verb.READ))
            return Verification(
                ok=result.bad is None,
                checked=result.checked,
                first=result.first,
                last=result.last,
                bad=result.bad,
                bad_last=result.bad_last,
                erased=result.erased,
                hash=result.hash.hex(),
            )

    async with opened(url) as parts:
        yield Stored()
