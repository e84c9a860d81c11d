# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb salvage: from a damaged database a new one, and the exact list of what was lost.

It reads a file that no server uses, and never changes it.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from unbroken.cli.backup import Force, shown_progress
from unbroken.cli.connection import Json
from unbroken.cli.encryption import KeyFile, keyring
from unbroken.cli.exits import Exit
from unbroken.cli.offline import local_path
from unbroken.cli.output import clean, print_json
from unbroken.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from unbroken.store.sqlite.salvage import Lost

__all__ = ["salvage"]


def salvage(
    database: str,
    to: Path,
    /,
    *,
    force: Force = False,
    believe_pages: Force = False,
    encryption_key_file: KeyFile = None,
    json: Json = False,
) -> int:
    """Make a new database from everything of a damaged one that verifies, and list what was lost.

    With a key the new database is encrypted, also where the damaged one is not.

    In the place of a lost message stands one of kind `lost`, so that all others keep their places. Exits with 4 when
    anything was lost, with 0 when nothing was; the new file is there in both cases.

    Args:
        database: The damaged file, or sqlite:///FILE. It is only read.
        to: The file to make.
        force: Replace `to` when it is there.
        believe_pages: Another program has written to the file (a VACUUM, say): ask only messages for checksums, not pages.
    """
    from unbroken.store.sqlite.salvage import Means
    from unbroken.store.sqlite.salvage import salvage as bring_back

    ring = keyring(encryption_key_file)
    with shown_progress() as progress:
        made = bring_back(
            local_path(database),
            to,
            DEFAULT_LIMITS,
            replace_target=force,
            means=Means(believe_pages=believe_pages, ring=ring),
            progress=progress,
        )
    if json:
        lost = [asdict(one) for one in made.lost]
        print_json({"database": str(to), "streams": made.streams, "messages": made.messages, "lost": lost})
    else:
        for one in made.lost:
            sys.stdout.write(clean(f"LOST {_place(one)}{one.reason}") + "\n")
        text = f"{to}: {made.streams} streams, {made.messages} messages brought back, {len(made.lost)} losses"
        sys.stdout.write(clean(text) + "\n")
    return Exit.TAMPERED if made.lost else Exit.OK


def _place(lost: Lost) -> str:
    if lost.stream is None:
        return ""
    return f"{lost.stream}: " if lost.first is None else f"{lost.stream} {lost.first}-{lost.last}: "
