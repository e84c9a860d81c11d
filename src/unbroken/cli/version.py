"""The verb version.

It says what runs, for people and for programs, and touches neither a store nor a server.
"""

from __future__ import annotations

import platform
import sys

from unbroken import __version__
from unbroken.cli.connection import Json
from unbroken.cli.exits import Exit
from unbroken.cli.output import print_json
from unbroken.protocol.frames import PROTOCOL

__all__ = ["version"]


def version(*, json: Json = False) -> int:
    """Print the version; with --json also the protocol's, Python's and SQLite's."""
    if not json:
        sys.stdout.write(f"unbroken {__version__}\n")
        return Exit.OK
    import apsw

    print_json(
        {
            "unbroken": __version__,
            "protocol": PROTOCOL,
            "python": platform.python_version(),
            "sqlite": apsw.sqlite_lib_version(),
        }
    )
    return Exit.OK
