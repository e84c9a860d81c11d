"""Where agents come in over HTTP, and what that entry needs before anybody but this machine may reach it.

The command line makes an `Entry`, `transports` serves it. It opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from unbroken.auth.forwarded import Proxies
from unbroken.errors import ConfigurationError
from unbroken.server.entrance import check_certificate, tell_if_others_may_read
from unbroken.settings import is_loopback

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An address, the token that agents must send, and either a certificate or the proxies that have one.

    Without `key`, the certificate's file holds it too.
    """

    host: str
    port: int
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None
    proxies: Proxies | None = None

    @staticmethod
    def parse_address(text: str) -> tuple[str, int]:
        """`HOST:PORT` or `PORT`; `ConfigurationError` for anything else."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        if not (port.isascii() and port.isdigit()) or int(port) > 65_535:
            raise ConfigurationError(f"an address is HOST:PORT, not {text!r}", setting="http")
        return host, int(port)

    def check(self) -> None:
        """`ConfigurationError` for a certificate that cannot be used, and for an entry that others can reach unguarded.

        That is one without a token, or one whose token anybody on the way could read.
        """
        if self.key is not None and self.certificate is None:
            raise ConfigurationError(
                "a key (--http-tls-key) is nothing without its certificate (--http-tls-cert)", setting="http_tls_key"
            )
        check_certificate(self.certificate, self.key, setting="http_tls_cert")
        tell_if_others_may_read(self.key or self.certificate)
        elsewhere = not is_loopback(self.host)
        if (elsewhere or self.proxies is not None) and self.token is None:
            raise ConfigurationError(
                f"{self.host if elsewhere else 'the proxy'} can be reached from other machines: set UNBROKEN_MCP_TOKEN or "
                "--http-token-file, or listen on 127.0.0.1 for this machine alone",
                setting="http",
            )
        if elsewhere and self.certificate is None and self.proxies is None:
            raise ConfigurationError(
                f"what goes over the network to {self.host} can be read and changed on its way: give a certificate "
                "(--http-tls-cert), name the proxy that has one (--http-behind-proxy), or listen on 127.0.0.1",
                setting="http",
            )
