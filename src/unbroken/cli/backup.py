# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verbs backup and restore: a verified copy of a database that is being written to, and a copy put in its place.

Both work on files and need no server. A copy has its name only when it is whole and verified.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unbroken.cli.connection import Json
from unbroken.cli.encryption import KeyFile, keyring
from unbroken.cli.exits import Exit
from unbroken.cli.offline import local_path
from unbroken.cli.output import clean, human_bytes, note, print_json
from unbroken.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from unbroken.store.sqlite.backup import Progress
    from unbroken.store.sqlite.examine import Examination

__all__ = ["backup", "restore", "shown_progress"]

Force = Annotated[bool, Parameter(negative="")]


def backup(
    database: str, to: Path, /, *, force: Force = False, encryption_key_file: KeyFile = None, json: Json = False
) -> int:
    """Copy a database while servers use it, verify the copy, and only then give it its name.

    The copy of an encrypted database is encrypted. Without the key its checksums are verified, and not its hash chains.

    Args:
        database: The database's file, or sqlite:///FILE.
        to: The file to make.
        force: Replace `to` when it is there; until the new copy is whole, it stays what it was.
    """
    from unbroken.store.sqlite.backup import back_up

    source, ring = local_path(database), keyring(encryption_key_file)
    with shown_progress() as progress:
        made = back_up(source, to, DEFAULT_LIMITS, replace=force, progress=progress, ring=ring)
    size = to.stat().st_size
    if json:
        print_json({"backup": str(to), "bytes": size, "streams": made.streams, "messages": made.messages})
    else:
        text = f"{to}: {human_bytes(size)}, {made.streams} streams, {made.messages} messages, {_verified(made)}"
        sys.stdout.write(clean(text) + "\n")
    return Exit.OK


def restore(
    source: Path, database: str, /, *, force: Force = False, encryption_key_file: KeyFile = None, json: Json = False
) -> int:
    """Verify a backup and put it in the place of a database that no server uses.

    Args:
        source: The backup.
        database: The database's file, or sqlite:///FILE.
        force: Replace the database when it is there; the old one is kept beside it as FILE.replaced.
    """
    from unbroken.store.sqlite.backup import restore as put_back

    path, ring = local_path(database), keyring(encryption_key_file)
    with shown_progress() as progress:
        made, kept = put_back(source, path, DEFAULT_LIMITS, replace=force, progress=progress, ring=ring)
    if json:
        old = None if kept is None else str(kept)
        print_json({"database": str(path), "streams": made.streams, "messages": made.messages, "replaced": old})
    else:
        sys.stdout.write(clean(f"{path}: {made.streams} streams, {made.messages} messages, {_verified(made)}") + "\n")
        if kept is not None:
            note(f"the database that was there is now {kept}")
    return Exit.OK


def _verified(made: Examination) -> str:
    return "checksums verified (it is encrypted, and no key was given)" if made.blind else "verified"


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of or None)

        yield progress
