# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb doctor: looks for what commonly goes wrong, and says the cure.

It checks this machine, the store when one is named, and the server when there is one. It makes one stream of its own for the
test of the way to the server and deletes it; nothing else is changed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from unbroken.cli import checks
from unbroken.cli.checks import Check
from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.encryption import KeyFile
from unbroken.cli.exits import Exit
from unbroken.cli.output import clean, print_json

__all__ = ["doctor"]

_MARKS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED "}


def doctor(
    *,
    store: str | None = None,
    encryption_key_file: KeyFile = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Check this machine, a store and a server. Exits with 69 when something is broken.

    Args:
        store: Check this store (sqlite:///FILE) instead of a server.
    """
    found = checks.machine() + run_async(_examine(store, encryption_key_file, connection))
    for check in found:
        if json:
            print_json(check)
            continue
        sys.stdout.write(f"{_MARKS[check.status]} {check.name}: {clean(check.text)}\n")
        if check.cure and check.status != "ok":
            sys.stdout.write(f"        cure: {clean(check.cure)}\n")
    return Exit.UNAVAILABLE if any(check.status == "failed" for check in found) else Exit.OK


async def _examine(store: str | None, key_file: Path | None, connection: Connection) -> list[Check]:
    return await checks.stored(store, key_file) if store is not None else await checks.served(connection)
