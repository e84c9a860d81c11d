"""TLS on the way through a fault proxy: the connection goes to the proxy, the certificate is the server's.

Adapters ask it whom they speak to and how that is proven. It opens no connection itself.
"""

from __future__ import annotations

import ssl as tls
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Secure", "secure"]

SCHEMES = frozenset({"https", "wss"})


@dataclass(frozen=True, slots=True)
class Secure:
    """Whose certificate is wanted, and by what it is checked."""

    authority: str
    """The server as its clients name it: `host` or `host:port`. Requests name it too, whatever way they take."""
    ssl: tls.SSLContext
    ca_file: Path | None = None
    """Where `ssl` has its certificates from, for a program that is the adapter; None for the system's."""

    @property
    def host(self) -> str:
        """The name that the certificate must be for."""
        return urlsplit(f"//{self.authority}").hostname or ""


def secure(url: str, ssl: tls.SSLContext | None, ca_file: Path | None = None) -> Secure | None:
    """What belongs to the address of a server; None where it is not one of TLS. Without `ssl` the system's trust counts."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        return None
    return Secure(parts.netloc.rpartition("@")[2], ssl or tls.create_default_context(), ca_file)
