"""An identity provider of a test: keys made at run time, tokens signed by hand, and its key document over real HTTP.

Tokens are put together here and not by the library that verifies them, so that they can be wrong in every way.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

__all__ = ["AUDIENCE", "ISSUER", "Idp", "Signer", "encode", "served", "shared_signer", "signer"]

ISSUER: Final = "https://login.example"
AUDIENCE: Final = "unbroken"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes


def encode(value: bytes | object) -> str:
    """Base64url without padding; anything but bytes as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class Signer:
    """One key of the provider."""

    kid: str
    algorithm: str
    key: Key = field(repr=False)

    @property
    def jwk(self) -> dict[str, str]:
        """The public side, as it stands in the document."""
        common = {"kid": self.kid, "use": "sig", "alg": self.algorithm}
        if isinstance(self.key, bytes):
            return {**common, "kty": "oct", "k": encode(self.key)}
        if isinstance(self.key, rsa.RSAPrivateKey):
            numbers = self.key.public_key().public_numbers()
            return {**common, "kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            raw = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            return {**common, "kty": "OKP", "crv": "Ed25519", "x": encode(raw)}
        point = self.key.public_key().public_numbers()
        x, y = (encode(part.to_bytes(32, "big")) for part in (point.x, point.y))
        return {**common, "kty": "EC", "crv": "P-256", "x": x, "y": y}

    @property
    def pem(self) -> bytes:
        """The public key as a text that everybody has: what an attacker signs with by HMAC."""
        assert not isinstance(self.key, bytes)
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, head: Mapping[str, Any], claims: Mapping[str, Any] | bytes) -> str:
        """A token with exactly this head and these claims."""
        signed = f"{encode(dict(head))}.{encode(claims if isinstance(claims, bytes) else dict(claims))}"
        return f"{signed}.{encode(self._signature(signed.encode()))}"

    def token(self, claims: Mapping[str, Any], **head: Any) -> str:
        """A token as the provider makes them; `head` changes its head."""
        return self.sign({"alg": self.algorithm, "kid": self.kid, "typ": "at+jwt", **head}, claims)

    def _signature(self, data: bytes) -> bytes:
        key = self.key
        if isinstance(key, bytes):
            return hmac.digest(key, data, "sha256")
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@cache
def signer(kid: str = "first", algorithm: str = "ES256") -> Signer:
    """The key of this name; the same one each time."""
    if algorithm == "RS256":
        return Signer(kid, algorithm, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    if algorithm == "EdDSA":
        return Signer(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
    return Signer(kid, algorithm, ec.generate_private_key(ec.SECP256R1()))


def shared_signer(secret: bytes, kid: str = "shared") -> Signer:
    """A key that signs and verifies."""
    return Signer(kid, "HS256", secret)


@dataclass
class Idp:
    """The provider's key document, served: what it answers, and how often it was asked."""

    signers: list[Signer]
    url: str = ""
    asked: int = 0
    body: bytes | None = None
    head: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    hold: asyncio.Event | None = None
    """While it is there and not set, no answer is given."""
    away: bool = False

    @property
    def document(self) -> bytes:
        return json.dumps({"keys": [signer.jwk for signer in self.signers]}).encode()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.hold is not None:
                await self.hold.wait()
            if not self.away:
                writer.write(self.head + (self.document if self.body is None else self.body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(*signers: Signer) -> AsyncIterator[Idp]:
    """The key document of these signers at a port of the loopback interface."""
    idp = Idp(list(signers))
    server = await asyncio.start_server(idp.answer, "127.0.0.1", 0)
    idp.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    try:
        yield idp
    finally:
        if idp.hold is not None:
            idp.hold.set()
        server.close()
        await server.wait_closed()
