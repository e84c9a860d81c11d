"""Signed notes (c2sp.org/signed-note) with Ed25519: keys as text, signing, and checking a signature.

Checkpoints are such notes. Nothing here knows what a note says, and no key is ever in a message of an error.
"""

from __future__ import annotations

import os
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from unbroken.errors import AlreadyExistsError, ConfigurationError, InvalidError

__all__ = ["Signer", "Verifier", "generate", "load_signer", "text_of"]

ED25519 = b"\x01"
SEED_BYTES = 32
ID_BYTES = 4
_SIGNATURE = re.compile("— ([^ +\n]+) ([A-Za-z0-9+/=]+)\n")
_NAME = re.compile(r"[^\s+]{1,200}")


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key and its name, which checks what the owner of the private one has signed."""

    name: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read `NAME+ID+KEY`; `InvalidError` where it is not that."""
        name, _, rest = text.strip().partition("+")
        key = _decoded(rest.partition("+")[2])
        verifier = cls(name, key[1:])
        whole = key[:1] == ED25519 and len(key) == 1 + SEED_BYTES and _NAME.fullmatch(name)
        if not whole or str(verifier) != text.strip():
            raise InvalidError("a verifier key is NAME+ID+KEY, as `unbroken keygen` prints it", field="key")
        return verifier

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(ED25519 + self.key).decode()}"

    @property
    def id(self) -> bytes:
        """What tells this key from others of its name."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:ID_BYTES]

    def signed(self, note: str) -> bool:
        """Whether one of the note's signatures is by this key."""
        text, signatures = _parts(note)
        public = Ed25519PublicKey.from_public_bytes(self.key)
        for name, encoded in _SIGNATURE.findall(signatures):
            signature = _decoded(encoded)
            if name != self.name or signature[:ID_BYTES] != self.id:
                continue
            try:
                public.verify(signature[ID_BYTES:], text.encode())
            except InvalidSignature:
                continue
            return True
        return False


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and its name."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def verifier(self) -> Verifier:
        """The public key."""
        return Verifier(self.name, self._key.public_key().public_bytes_raw())

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def sign(self, text: str) -> str:
        """The note of `text`, whose lines all end with a line feed."""
        assert text.endswith("\n")
        encoded = b64encode(self.verifier.id + self._key.sign(text.encode())).decode()
        return f"{text}\n— {self.name} {encoded}\n"

    def secret_text(self) -> str:
        """What a file with the private key holds."""
        encoded = b64encode(ED25519 + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.id.hex()}+{encoded}\n"


def text_of(note: str) -> str:
    """What was signed."""
    return _parts(note)[0]


def generate(path: Path, name: str) -> Verifier:
    """Make a key, write the private half to a new file that only its owner may read, and give the public one.

    Raises `AlreadyExistsError` when there is such a file, `InvalidError` for a name that no note can carry.
    """
    if not _NAME.fullmatch(name):
        raise InvalidError("a key's name has no space and no +, and at most 200 characters", field="name")
    signer = Signer(name, secrets.token_bytes(SEED_BYTES))
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(signer.secret_text())
    except FileExistsError:
        raise AlreadyExistsError(f"there is a file {path}") from None
    return signer.verifier


def load_signer(path: Path) -> Signer:
    """The private key of a file; `ConfigurationError` where there is none, or others may read it."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(f"cannot read the key {path}: {reason}", setting="checkpoint_key") from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(f"others may read the key {path}; do `chmod 600` on it", setting="checkpoint_key")
    parts = text.split("+", 4)
    secret = _decoded(parts[4]) if len(parts) == 5 and parts[:2] == ["PRIVATE", "KEY"] else b""
    if secret[:1] != ED25519 or len(secret) != 1 + SEED_BYTES:
        raise ConfigurationError(f"{path} holds no key of `unbroken keygen`", setting="checkpoint_key")
    signer = Signer(parts[2], secret[1:])
    if signer.verifier.id.hex() != parts[3] or not _NAME.fullmatch(signer.name):
        raise ConfigurationError(f"the key in {path} does not fit its name", setting="checkpoint_key")
    return signer


def _parts(note: str) -> tuple[str, str]:
    """A note's text and its signatures; two empty ones where it is no note."""
    text, blank, signatures = note.rpartition("\n\n")
    return (text + "\n", signatures) if blank else ("", "")


def _decoded(encoded: str) -> bytes:
    try:
        return b64decode(encoded, validate=True)
    except ValueError:
        return b""
