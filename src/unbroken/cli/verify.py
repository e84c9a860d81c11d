# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb verify: recomputes hash chains, at the server or in a database file that no server uses.

A chain that does not hold, and stored data that fails its checksum, give exit code 4. It changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.encryption import KeyFile, keyring
from unbroken.cli.exits import Exit, UsageError, report
from unbroken.cli.output import clean, note, print_json
from unbroken.errors import CorruptError, UnbrokenError

if TYPE_CHECKING:
    from typing import Protocol

    from unbroken.checkpoints.compare import Comparison
    from unbroken.cli.evidence import Evidence
    from unbroken.client import Verification
    from unbroken.messages import StreamInfo
    from unbroken.store.sealing import Keyring

    class _Source(Protocol):
        """Where streams are verified: `streams` gives names, and what is needed to verify each."""

        def streams(self, wanted: Sequence[str]) -> AsyncIterator[tuple[str, _Verify]]: ...

    _Verify = Callable[[], Awaitable[tuple[Verification, Comparison | None]]]


__all__ = ["verify"]

PAGE_ITEMS = 500


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What is believed, besides what is stored."""

    checkpoints: Annotated[
        Path | None, Parameter(help="Hold streams against the signed checkpoints in this directory (with --store).")
    ] = None
    key: Annotated[
        str | None, Parameter(help="The public key that has signed them, as `unbroken keygen` printed it.")
    ] = None
    kept: Annotated[
        tuple[Path, ...],
        Parameter(negative="", help="A checkpoint that you have kept elsewhere: it must be there too."),
    ] = ()
    encryption_key_file: KeyFile = None


NOTHING_ELSE: Final = Trusted()


def verify(
    *name: str,
    all_streams: Annotated[bool, Parameter(name="--all", negative="")] = False,
    store: str | None = None,
    trusted: Trusted = NOTHING_ELSE,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Recompute the hash chains of streams and say where they break. Exits with 4 when one does.

    Without checkpoints this finds what somebody changed who did not write everything anew. With them it also finds a log that
    was cut off, or written anew by whoever owns the database.

    Args:
        name: The streams' names.
        all_streams: Verify every stream that you may see; of a store also every page of its file.
        store: Verify in this store (sqlite:///FILE) instead of asking a server.
    """
    if bool(name) == all_streams:
        raise UsageError("give the names of streams, or --all")
    if (trusted.checkpoints is None) != (trusted.key is None) or (trusted.kept and trusted.key is None):
        raise UsageError("checkpoints want both --checkpoints and --key")
    if trusted.checkpoints is not None and store is None:
        raise UsageError("checkpoints are compared with a store: say --store")
    pages = Exit.OK if store is None or name else _verify_pages(store, as_json=json)
    evidence = _evidence(trusted)
    source = _served(connection) if store is None else _stored(store, evidence, keyring(trusted.encryption_key_file))
    code = run_async(_verify(name, source, as_json=json))
    if evidence is not None:
        code = max(code, evidence.tell(as_json=json, everything=all_streams))
    return max(pages, code)


def _evidence(trusted: Trusted) -> Evidence | None:
    if trusted.checkpoints is None or trusted.key is None:
        return None
    from unbroken.cli.evidence import Evidence

    return Evidence.load(trusted.checkpoints, trusted.key, trusted.kept)


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


async def _verify(wanted: Sequence[str], opening: AbstractAsyncContextManager[_Source], *, as_json: bool) -> int:
    code = Exit.OK
    async with opening as source:
        try:
            async for name, verify_it in source.streams(wanted):
                try:
                    result, comparison = await verify_it()
                except UnbrokenError as error:
                    if not isinstance(error, CorruptError):
                        raise
                    code = report(error, as_json=as_json)
                    _tell(name, None, None, error, as_json=as_json)
                    continue
                _tell(name, result, comparison, None, as_json=as_json)
                if not result.ok or (comparison is not None and comparison.reason is not None):
                    code = Exit.TAMPERED
        except CorruptError as error:
            return report(error, as_json=as_json)
    return code


def _tell(
    name: str,
    result: Verification | None,
    comparison: Comparison | None,
    error: UnbrokenError | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json(_row(name, result, comparison, error))
    elif result is None:
        sys.stdout.write(f"{clean(name)}: CORRUPT\n")
    elif not result.ok:
        sys.stdout.write(f"{clean(name)}: TAMPERED: {_stretch(result.bad, result.bad_last)} not what was appended\n")
    elif comparison is not None and comparison.reason is not None:
        where = _messages(comparison.bad, comparison.bad_last)
        sys.stdout.write(f"{clean(name)}: TAMPERED: {where}: {comparison.reason}, say its checkpoints\n")
    else:
        erased = f", {result.erased} of them erased" if result.erased else ""
        covered = "" if comparison is None else f", checkpoints up to message {comparison.covered}"
        sys.stdout.write(f"{clean(name)}: {result.checked} messages verified{erased}{covered}\n")


def _row(
    name: str, result: Verification | None, comparison: Comparison | None, error: UnbrokenError | None
) -> dict[str, object]:
    """What is told of a stream as JSON."""
    if result is None:
        seq = None if error is None else error.detail.get("seq")
        return {"stream": name, "ok": False, "checked": 0, "bad": seq, "bad_last": seq, "erased": 0, "hash": ""}
    row: dict[str, object] = {
        "stream": name,
        "ok": result.ok,
        "checked": result.checked,
        "bad": result.bad,
        "bad_last": result.bad_last,
        "erased": result.erased,
        "hash": result.hash,
    }
    if comparison is not None:
        row |= {"covered": comparison.covered}
        if comparison.reason is not None:
            row |= {"ok": False, "bad": comparison.bad, "bad_last": comparison.bad_last, "reason": comparison.reason}
    return row


def _stretch(bad: int | None, bad_last: int | None) -> str:
    """What can be told of where the damage is."""
    return (
        f"message {bad} is" if bad_last is None or bad == bad_last else f"in messages {bad} to {bad_last} something is"
    )


def _messages(bad: int | None, bad_last: int | None) -> str:
    return f"message {bad}" if bad == bad_last else f"messages {bad} to {bad_last}"


@asynccontextmanager
async def _served(connection: Connection) -> AsyncIterator[_Source]:
    """Through a server."""

    class Served:
        async def streams(self, wanted: Sequence[str]) -> AsyncIterator[tuple[str, _Verify]]:
            for name in wanted:
                yield name, self._verify_of(name)
            page: str | None = None
            while not wanted:
                streams = await client.list(limit=PAGE_ITEMS, page=page)
                for view in streams.streams:
                    yield view.stream, self._verify_of(view.stream)
                page = streams.next
                if page is None:
                    return

        def _verify_of(self, name: str) -> _Verify:
            async def verify_it() -> tuple[Verification, Comparison | None]:
                return await client.verify(name), None

            return verify_it

    async with connection.client() as client:
        yield Served()


@asynccontextmanager
async def _stored(url: str, evidence: Evidence | None, ring: Keyring | None) -> AsyncIterator[_Source]:
    """In a store that this process opens; the first message that fails its checksum ends a stream's verification."""
    from unbroken.cli.offline import opened
    from unbroken.client import Verification
    from unbroken.errors import NotFoundError
    from unbroken.messages import StreamId

    class Stored:
        async def streams(self, wanted: Sequence[str]) -> AsyncIterator[tuple[str, _Verify]]:
            """Everybody's: whoever may read the file has no owner."""
            missing, after = set(wanted), StreamId(0)
            while found := await parts.store.all_streams(after, limit=PAGE_ITEMS):
                after = found[-1].id
                for info in found:
                    if not wanted or info.name in wanted:
                        missing.discard(info.name)
                        yield info.name, self._verify_of(info)
            if missing:
                name = min(missing)
                raise NotFoundError(f"no stream {name!r}", stream=name)

        def _verify_of(self, info: StreamInfo) -> _Verify:
            async def verify_it() -> tuple[Verification, Comparison | None]:
                if evidence is not None:
                    evidence.meet(info)
                result = await parts.verify(info)
                ok = result.bad is None
                comparison = await evidence.compare(parts, info) if ok and evidence is not None else None
                found = Verification(
                    ok=ok,
                    checked=result.checked,
                    first=result.first,
                    last=result.last,
                    bad=result.bad,
                    bad_last=result.bad_last,
                    erased=result.erased,
                    hash=result.hash.hex(),
                )
                return found, comparison

            return verify_it

    async with opened(url, ring) as parts:
        yield Stored()
