"""Who a request came from, and how, when a proxy stands in front: what a proxy says counts, what anybody else says does not.

The faces ask it for each request where proxies are configured. It reads header values, opens nothing and remembers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from unbroken.errors import ConfigurationError, ForbiddenOriginError

__all__ = ["Proxies", "Seen"]

HOPS_MAX: Final = 32
SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Seen:
    """The client behind the proxies, and how it asked: `http` or `https`; None where no proxy says so."""

    address: str
    scheme: str | None


@dataclass(frozen=True, slots=True)
class Proxies:
    """The networks that our proxies are in. With `encrypted`, the server speaks TLS itself, and anybody may come directly."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    encrypted: bool = False

    @classmethod
    def parse(cls, networks: Sequence[str], *, encrypted: bool = False, setting: str = "behind_proxy") -> Proxies:
        """Addresses, or networks in CIDR notation; `ConfigurationError` (for `setting`) names one that is neither."""
        found = []
        for text in networks:
            try:
                found.append(ip_network(text))
            except ValueError:
                raise ConfigurationError(
                    f"{text!r} is no address and no network such as 10.0.0.0/8", setting=setting
                ) from None
        return cls(tuple(found), encrypted)

    def trusts(self, address: str) -> bool:
        """Whether `address` is one of our proxies."""
        found = _address(address)
        return found is not None and any(found in network for network in self.networks)

    def check_peer(self, peer: str) -> None:
        """`ForbiddenOriginError` for who goes past the proxies over an open network."""
        found = _address(peer)
        if not (self.encrypted or self.trusts(peer) or found is None or found.is_loopback):
            raise ForbiddenOriginError("this server is reached through its proxy only")

    def seen(self, peer: str, forwarded_for: Sequence[str], forwarded_proto: Sequence[str]) -> Seen:
        """Who asks through `peer`, by the values of the headers `X-Forwarded-For` and `X-Forwarded-Proto`.

        Each proxy adds whom it has seen at the end, so they are read from there, for as long as it is a proxy who says it.
        """
        if not self.trusts(peer):
            return Seen(peer, None)
        address = peer
        for hop in _from_the_right(forwarded_for):
            known = None if "%" in hop else _address(hop)  # a zone is a matter of one machine, and may be any text
            if known is None:
                break
            address = str(known)
            if not self.trusts(address):
                break
        said = next(_from_the_right(forwarded_proto), "")
        return Seen(address, SCHEMES.get(said.lower()))


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    parts = [part.strip() for value in values for part in value.split(",")]
    yield from parts[: -HOPS_MAX - 1 : -1]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, with or without a port; None for anything else."""
    match = _WITH_PORT.fullmatch(text)
    try:
        found = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
