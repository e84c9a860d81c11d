# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verbs encryption-key and rekey, and the master key that every verb needs which opens an encrypted database.

A key comes from a file or the environment, never from an argument, and is never printed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unbroken.cli.connection import Json
from unbroken.cli.exits import Exit
from unbroken.cli.offline import database_path, local_path
from unbroken.cli.output import clean, note, print_json
from unbroken.errors import AlreadyExistsError, ConfigurationError
from unbroken.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from unbroken.store.sealing import Keyring

__all__ = ["KeyFile", "encryption_key", "keyring", "rekey"]

VARIABLE = "UNBROKEN_ENCRYPTION_KEY"
KeyFile = Annotated[
    Path | None,
    Parameter(
        env_var="UNBROKEN_ENCRYPTION_KEY_FILE",
        help="The file with the key of an encrypted database; else UNBROKEN_ENCRYPTION_KEY is used.",
    ),
]


def keyring(file: Path | None) -> Keyring | None:
    """The keys in `file`, else in the environment; None where there are none."""
    from unbroken.store.keys import MasterKeys
    from unbroken.store.sealing import Keyring

    text = os.environ.get(VARIABLE)
    if file is not None:
        return Keyring(MasterKeys.read(file))
    return None if not text else Keyring(MasterKeys.parse(text))


def encryption_key(file: Path, /, *, json: Json = False) -> int:
    """Make a key for encrypting a database at rest. Whoever loses it loses what is encrypted with it.

    Args:
        file: The file to make, which only you may read. When it is there, the new key becomes its first line, so that it is
            used from the next start on, and the keys below stay good for what they have wrapped; then see `unbroken rekey`.
    """
    from unbroken.store.keys import MasterKeys, new_master_key

    before = file.read_text(encoding="ascii") if file.exists() else ""
    if before:
        MasterKeys.parse(before)
    text = f"{new_master_key()}\n{before}"
    names = MasterKeys.parse(text).names
    unfinished = file.with_name(file.name + ".partial")
    try:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise AlreadyExistsError(
            f"{unfinished} is in the way: somebody else makes a key now, or was interrupted"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be made: {error.strerror}", setting="encryption_key_file") from None
    with os.fdopen(handle, "w", encoding="ascii") as made:
        made.write(text)
        made.flush()
        os.fsync(made.fileno())
    unfinished.replace(file)
    if json:
        print_json({"file": str(file), "keys": names.split(", ")})
    else:
        sys.stdout.write(clean(f"{file}: keys {names}") + "\n")
        note("keep a copy where the database is not: without the key nobody can read it")
    return Exit.OK


def rekey(database: str, /, *, encryption_key_file: KeyFile = None, json: Json = False) -> int:
    """Wrap the keys of all streams with the first key of the file, while servers go on; what streams hold is not touched.

    Afterwards the other keys of the file are not needed any more, except for older backups.

    Args:
        database: The database's file, or sqlite:///FILE.
    """
    from unbroken.store.sqlite.stream_keys import rewrap

    path = database_path(database if "://" in database else f"sqlite:///{local_path(database).absolute()}")
    ring = keyring(encryption_key_file)
    if ring is None:
        raise ConfigurationError("rekey needs the keys, old and new", setting="encryption_key_file")
    count = rewrap(path, DEFAULT_LIMITS, ring)
    if json:
        print_json({"database": str(path), "keys": count})
    else:
        sys.stdout.write(clean(f"{path}: {count} keys are wrapped with the first key of the file") + "\n")
    return Exit.OK
