"""What a proxy of ours says about its client counts; what anybody else says does not."""

from __future__ import annotations

import pytest

from unbroken.auth.forwarded import Proxies, Seen
from unbroken.errors import ConfigurationError, ForbiddenOriginError

OURS = Proxies.parse(["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"])


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not a proxy: what it says is its own affair
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),  # what the client wrote in front of it
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.9, 198.51.100.1, 10.0.0.2, 127.0.0.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, evil"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:8080"], "198.51.100.1"),
        ("2001:db8::1", ["[2001:db9::7]:443"], "2001:db9::7"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [", ,"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%\x9b31m for the log"], "10.0.0.1"),
        ("10.0.0.1", ["[fe80::1%any text]:80"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1," + "10.0.0.2," * 40 + "10.0.0.2"], "10.0.0.2"),
        ("/run/socket", ["198.51.100.1"], "/run/socket"),
    ],
)
def test_a_clients_address_is_what_the_last_of_our_proxies_has_seen(
    peer: str, forwarded_for: list[str], address: str
) -> None:
    assert OURS.seen(peer, forwarded_for, []).address == address


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        ("10.0.0.1", ["https"], "https"),
        ("10.0.0.1", ["HTTPS"], "https"),
        ("10.0.0.1", ["wss"], "https"),
        ("10.0.0.1", ["https, http"], "http"),
        ("10.0.0.1", ["javascript"], None),
        ("10.0.0.1", [], None),
        ("203.0.113.9", ["https"], None),
    ],
)
def test_the_scheme_too(peer: str, proto: list[str], scheme: str | None) -> None:
    assert OURS.seen(peer, [], proto) == Seen(peer, scheme)


def test_nobody_goes_past_the_proxies_over_an_open_network() -> None:
    for peer in ("10.0.0.1", "127.0.0.1", "::1", "127.0.0.9", "/run/socket"):
        OURS.check_peer(peer)
    with pytest.raises(ForbiddenOriginError):
        OURS.check_peer("203.0.113.9")
    Proxies.parse(["10.0.0.0/8"], encrypted=True).check_peer("203.0.113.9")


@pytest.mark.parametrize("text", ["everybody", "10.0.0.1/8", "10.0.0.0/33", "proxy.example", ""])
def test_what_is_no_network_is_a_mistake(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Proxies.parse([text])
