"""The newest version in common is chosen, and an error names both sides'."""

from __future__ import annotations

import pytest

from unbroken.errors import VersionError
from unbroken.protocol import negotiation


def test_the_newest_version_in_common_is_chosen_whatever_the_order_of_the_offer() -> None:
    supported = ("unbroken.v3", "unbroken.v2", "unbroken.v1")
    assert negotiation.choose(["unbroken.v1", "unbroken.v2", "unbroken.v9"], supported) == "unbroken.v2"
    assert negotiation.choose(negotiation.offer()) == "unbroken.v1"


@pytest.mark.parametrize("offered", [[], ["unbroken.v9"], ["ticket.unbroken.v1"], ["UNBROKEN.V1"]])
def test_no_version_in_common_names_both_sides(offered: list[str]) -> None:
    with pytest.raises(VersionError) as caught:
        negotiation.choose(offered)
    assert "unbroken.v1" in caught.value.message
    assert ("unbroken.v9" in caught.value.message) == ("unbroken.v9" in offered)


def test_a_ticket_travels_beside_the_versions_and_is_never_one() -> None:
    offered = negotiation.offer("secret")
    assert negotiation.ticket_of(offered) == "secret"
    assert negotiation.ticket_of(negotiation.offer()) is None
    assert negotiation.choose(offered) == "unbroken.v1"
    with pytest.raises(VersionError) as caught:
        negotiation.choose(["ticket.secret"])
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("chosen", [None, "unbroken.v9"])
def test_a_client_takes_only_what_it_speaks(chosen: str | None) -> None:
    assert negotiation.check("unbroken.v1") == "unbroken.v1"
    with pytest.raises(VersionError):
        negotiation.check(chosen)
