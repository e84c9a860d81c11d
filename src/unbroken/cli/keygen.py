# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb keygen: makes the key with which a server signs checkpoints of its streams.

The private half goes to a new file, the public one to standard output; neither goes anywhere else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from unbroken.cli.connection import Json
from unbroken.cli.output import print_json

__all__ = ["keygen"]


def keygen(file: Path, *, name: str, json: Json = False) -> int:
    """Make a key for `unbroken serve --checkpoint-key`, and print its public half for `unbroken verify --key`.

    Args:
        file: The new file for the private key. Only its owner may read it.
        name: The key's name, best a domain name and a path of yours. Each server has a key of its own.
    """
    from unbroken.checkpoints.notes import generate

    verifier = generate(file, name)
    if json:
        print_json({"key": str(verifier), "file": str(file)})
    else:
        sys.stdout.write(f"{verifier}\n")
    return 0
