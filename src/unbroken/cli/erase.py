# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb erase: destroys what a stream, or all streams of a person, held; at the server, or in a database file.

At the server it does what the token may; in a file, whoever may write the file is the operator. The erasure itself is
`unbroken.erasure`.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unbroken.cli.auditing import AuditFile, audited
from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.encryption import KeyFile, keyring
from unbroken.cli.exits import Exit, UsageError
from unbroken.cli.output import clean, note, print_json

if TYPE_CHECKING:
    from unbroken.erasure import Erasure

__all__ = ["Whose", "erase"]

OPERATOR = "operator"
BACKUPS = "backups that were made before still hold it, and of an encrypted database its key too: destroy them"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """What to erase."""

    stream: Annotated[str | None, Parameter(help="The stream; without it all streams of the person.")] = None
    owner: Annotated[str | None, Parameter(help="Whose streams, in a store; at a server they are the token's.")] = None
    tenant: Annotated[str, Parameter(help="The person's tenant, in a store.")] = "local"
    everything: Annotated[bool, Parameter(negative="", help="At a server: all streams of whoever the token is.")] = (
        False
    )


DEFAULT_WHOSE = Whose()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """In which store, without a server or beside one."""

    store: Annotated[str | None, Parameter(help="Erase in this store (sqlite:///FILE) instead of asking a server.")] = (
        None
    )
    encryption_key_file: KeyFile = None
    audit: AuditFile = None


DEFAULT_WHERE = Where()


def erase(
    *,
    whose: Whose = DEFAULT_WHOSE,
    reason: str = "",
    where: Where = DEFAULT_WHERE,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Destroy what a stream, or all streams of a person, held. Nobody can bring it back.

    Names, numbers and times stay, and who erased it, when and why; hash chains still verify. It returns when the bytes are
    overwritten.

    Args:
        reason: Why, for the audit log and whoever asks for the stream.
    """
    if where.store is None:
        if whose.owner is not None or (whose.stream is None) == (not whose.everything):
            raise UsageError("give --stream NAME or --everything; --owner needs --store")
        erased = run_async(_at_server(whose, reason, connection))
    else:
        if whose.owner is None or whose.everything:
            raise UsageError("give --owner; with --stream only that stream of theirs")
        erased = run_async(_in_store(whose, reason, where, where.store))
    if json:
        print_json({"streams": erased.streams, "sessions": erased.sessions})
    else:
        sys.stdout.write(clean(f"{erased.streams} streams and {erased.sessions} sessions erased") + "\n")
        note(BACKUPS)
    return Exit.OK


async def _at_server(whose: Whose, reason: str, connection: Connection) -> Erasure:
    from unbroken.erasure import Erasure

    async with connection.client() as client:
        erased = await client.erase(whose.stream, reason)
    return Erasure(erased.streams, erased.sessions)


async def _in_store(whose: Whose, reason: str, where: Where, url: str) -> Erasure:
    from unbroken.cli.offline import opened
    from unbroken.erasure import Eraser
    from unbroken.identity import Principal, Verb

    principal = Principal(whose.tenant, whose.owner or "", actor=OPERATOR)
    with audited(where.audit) as audit:
        async with opened(url, keyring(where.encryption_key_file)) as streams, asyncio.TaskGroup() as tasks:
            log = tasks.create_task(streams.log.run(), name="log")
            try:
                eraser = Eraser(streams, audit)
                if whose.stream is None:
                    return await eraser.owner(principal, reason)
                found = await streams.get(principal, whose.stream, may=Verb.MANAGE)
                return await eraser.stream(principal, found, reason)
            finally:
                log.cancel()
