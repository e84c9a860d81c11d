# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb `download`: save a file that a run has stored."""

from __future__ import annotations

import sys
from pathlib import Path

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.exits import Exit, UsageError
from unbroken.cli.output import clean, human_bytes, print_json

__all__ = ["download"]


def download(
    name: str,
    /,
    *,
    output: Path | None = None,
    force: bool = False,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Save a file that a run has stored, whole and checked; its name is what `tail` shows.

    Args:
        name: The name of the file's stream.
        output: Where to; its own name in the present folder, by default.
        force: Replace a file that is there.
    """
    target = Path(name.rpartition("/")[2]) if output is None else output
    if target.is_dir():
        target /= name.rpartition("/")[2]
    if target.exists() and not force:
        raise UsageError(f"{target} exists; use --force to replace it, or --output for another name")

    async def work() -> int:
        async with connection.client() as client:
            size = await client.download(name, target)
        if json:
            print_json({"stream": name, "file": str(target), "bytes": size})
        else:
            sys.stdout.write(f"{clean(str(target))}: {human_bytes(size)}\n")
        return Exit.OK

    return run_async(work())
