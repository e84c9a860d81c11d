"""Master keys: what wraps the keys of streams, from a file, from the environment, or from a key management service.

The composition root reads them and hands a `Wrapping` to the store; `unbroken encryption` makes and changes them. They are
never stored beside the data, never logged, and never leave the process.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from unbroken.errors import ConfigurationError

__all__ = ["KEY_BYTES", "MasterKeys", "WrongKeyError", "Wrapping", "new_master_key"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
ID_BYTES: Final = 8
PREFIX: Final = "unbroken-encryption-key-1:"
FILE_BYTES_MAX: Final = 64 * 1024
SETTING: Final = "encryption_key_file"


class WrongKeyError(Exception):
    """None of the keys at hand wrapped this one."""


class Wrapping(Protocol):
    """Wraps the keys of streams. A key management service is one: both calls come from the store's threads and may wait.

    `context` says what the key is for and must be bound to the wrapped form: what was wrapped for one context is not
    unwrapped for another.
    """

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """`key` in a form that only `unwrap` can read."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """What was wrapped for this context; `WrongKeyError` for anything else."""
        ...


class MasterKeys:
    """Keys of 256 bits. The first one wraps, all of them unwrap: so that keys can be changed while servers run."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ConfigurationError(f"an encryption key has {KEY_BYTES} bytes", setting=SETTING)
        self._ciphers = {_id(key): AESGCM(key) for key in keys}
        self._first = _id(keys[0])

    @classmethod
    def parse(cls, text: str) -> MasterKeys:
        """The keys in `text`, one in a line as `new_master_key` gives it, # for comments; `ConfigurationError` otherwise."""
        lines = [line.strip() for line in text.splitlines()]
        keys = []
        for line in lines:
            if line and not line.startswith("#"):
                try:
                    keys.append(base64.b64decode(line.removeprefix(PREFIX), validate=True))
                except ValueError:
                    raise ConfigurationError("this is no encryption key", setting=SETTING) from None
                if not line.startswith(PREFIX):
                    raise ConfigurationError("this is no encryption key", setting=SETTING)
        return cls(keys)

    @classmethod
    def read(cls, path: Path) -> MasterKeys:
        """The keys in a file; `ConfigurationError` names it when there are none."""
        try:
            with path.open(encoding="ascii") as file:
                return cls.parse(file.read(FILE_BYTES_MAX))
        except OSError as error:
            text = f"the encryption key file {path} cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            text = f"{path}: this is no encryption key"
        except ConfigurationError as error:
            text = f"{path}: {error.message}"
        raise ConfigurationError(text, setting=SETTING)

    @property
    def names(self) -> str:
        """What the keys are called: not secret, and the same as what was wrapped with them says."""
        return ", ".join(name.hex() for name in self._ciphers)

    def wrap(self, key: bytes, context: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self._first + nonce + self._ciphers[self._first].encrypt(nonce, key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        name, nonce, rest = (
            wrapped[:ID_BYTES],
            wrapped[ID_BYTES : ID_BYTES + NONCE_BYTES],
            wrapped[ID_BYTES + NONCE_BYTES :],
        )
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise WrongKeyError(f"it was wrapped with the key {name.hex()}; given: {self.names}")
        try:
            return cipher.decrypt(nonce, rest, context)
        except (InvalidTag, ValueError):
            raise WrongKeyError("it was changed, or is that of another stream") from None


def _id(key: bytes) -> bytes:
    return sha256(b"unbroken encryption key\n" + key).digest()[:ID_BYTES]


def new_master_key() -> str:
    """A line for a key file: a fresh key."""
    return PREFIX + base64.b64encode(os.urandom(KEY_BYTES)).decode()
