"""Tickets work once, for a while, for whom they were issued; handshakes are admitted or refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.datastructures import Headers

from tests.support.parts import ManualClock
from unbroken.auth.access import Access
from unbroken.auth.callers import OPERATOR, Callers
from unbroken.auth.handshake import Admission, admit
from unbroken.auth.stored import StoredTokens
from unbroken.auth.tickets import Tickets
from unbroken.errors import ForbiddenOriginError, OverloadedError, QuotaError, UnauthorizedError, VersionError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.memory import MemoryStore

ALICE = Principal("local", "alice")
ORIGIN = "http://localhost:4437"


def tickets(clock: ManualClock | None = None) -> Tickets:
    return Tickets(DEFAULT_LIMITS, clock or ManualClock())


def test_a_ticket_says_whose_it_is_exactly_once() -> None:
    issued = tickets()
    ticket = issued.issue(ALICE, ORIGIN)
    assert issued.spend(ticket, ORIGIN) == ALICE
    with pytest.raises(UnauthorizedError):
        issued.spend(ticket, ORIGIN)


@pytest.mark.parametrize("origin", ["http://evil.example", None])
def test_a_ticket_shown_from_another_origin_is_refused_and_void(origin: str | None) -> None:
    issued = tickets()
    ticket = issued.issue(ALICE, ORIGIN)
    with pytest.raises(UnauthorizedError):
        issued.spend(ticket, origin)
    with pytest.raises(UnauthorizedError):
        issued.spend(ticket, ORIGIN)


def test_a_ticket_is_void_after_its_time() -> None:
    clock = ManualClock()
    issued = tickets(clock)
    early, late = issued.issue(ALICE, ORIGIN), issued.issue(ALICE, ORIGIN)
    clock.advance(29.999)
    assert issued.spend(early, ORIGIN) == ALICE
    clock.advance(0.001)
    with pytest.raises(UnauthorizedError):
        issued.spend(late, ORIGIN)


def test_a_ticket_is_not_good_again_when_the_clock_is_set_back() -> None:
    clock = ManualClock()
    issued = tickets(clock)
    ticket = issued.issue(ALICE, ORIGIN)
    clock.advance(40)
    clock.advance(-60)
    with pytest.raises(UnauthorizedError):
        issued.spend(ticket, ORIGIN)


def test_a_ticket_ends_with_the_credential_that_it_was_asked_for_with() -> None:
    clock = ManualClock()
    issued = tickets(clock)
    ticket = issued.issue(replace(ALICE, expires_ms=clock.ms + 5_000), ORIGIN)
    clock.advance(5)
    with pytest.raises(UnauthorizedError):
        issued.spend(ticket, ORIGIN)


def test_a_revoked_credential_takes_its_tickets_along() -> None:
    issued = tickets()
    revoked, other = (issued.issue(replace(ALICE, credential=name), ORIGIN) for name in ("jwt:one", "jwt:two"))
    issued.forget("jwt:one")
    with pytest.raises(UnauthorizedError):
        issued.spend(revoked, ORIGIN)
    assert issued.spend(other, ORIGIN).credential == "jwt:two"


def test_a_page_of_the_server_itself_may_spend_its_ticket_without_naming_an_origin() -> None:
    issued = tickets()
    own, foreign, unbound = (
        issued.issue(ALICE, ORIGIN),
        issued.issue(ALICE, "https://app.example"),
        issued.issue(ALICE, None),
    )
    assert issued.spend(own, None, own=lambda origin: origin == ORIGIN) == ALICE
    with pytest.raises(UnauthorizedError):
        issued.spend(foreign, None, own=lambda origin: origin == ORIGIN)
    assert issued.spend(unbound, None, own=lambda origin: False) == ALICE


def test_tickets_are_bounded_and_expired_ones_make_room() -> None:
    clock = ManualClock()
    issued = Tickets(replace(DEFAULT_LIMITS, tickets_max=2), clock)
    issued.issue(ALICE, ORIGIN)
    clock.advance(1)
    issued.issue(ALICE, ORIGIN)
    with pytest.raises(OverloadedError):
        issued.issue(ALICE, ORIGIN)
    clock.advance(29)
    issued.issue(ALICE, ORIGIN)
    assert len(issued) == 2


def test_who_has_most_tickets_makes_room_for_others() -> None:
    issued = Tickets(replace(DEFAULT_LIMITS, tickets_max=7, tickets_of_owner_max=4), ManualClock())
    greedy, other, friend = (Principal("evil", name) for name in ("greedy", "other", "friend"))
    held = [issued.issue(greedy, ORIGIN) for _ in range(4)]
    for _ in range(3):
        issued.issue(other, ORIGIN)
    taken = [issued.issue(friend, ORIGIN), issued.issue(ALICE, ORIGIN)]
    for ticket in held[:2]:
        with pytest.raises(UnauthorizedError):
            issued.spend(ticket, ORIGIN)
    assert [issued.spend(ticket, ORIGIN) for ticket in taken] == [friend, ALICE]
    issued.issue(ALICE, ORIGIN)
    issued.issue(other, ORIGIN)
    with pytest.raises(OverloadedError):
        issued.issue(other, ORIGIN)
    issued.spend(held[2], ORIGIN)


def test_between_tenants_it_counts_what_each_has_in_all() -> None:
    issued = Tickets(replace(DEFAULT_LIMITS, tickets_max=6), ManualClock())
    many = [issued.issue(Principal("evil", str(number)), ORIGIN) for number in range(6)]
    taken = [issued.issue(ALICE, ORIGIN) for _ in range(3)]
    with pytest.raises(OverloadedError):
        issued.issue(Principal("evil", "one more"), ORIGIN)
    with pytest.raises(OverloadedError):
        issued.issue(ALICE, ORIGIN)
    assert [issued.spend(ticket, ORIGIN).subject for ticket in many[3:]] == ["3", "4", "5"]
    assert [issued.spend(ticket, ORIGIN) for ticket in taken] == [ALICE] * 3


def test_one_owner_cannot_hold_the_tickets_of_all() -> None:
    clock = ManualClock()
    issued = Tickets(replace(DEFAULT_LIMITS, tickets_max=9, tickets_of_owner_max=2), clock)
    link = Principal(credential="token:link")
    for greedy in (ALICE, link):
        held = [issued.issue(replace(greedy, credential=greedy.credential or f"jwt:{one}"), ORIGIN) for one in range(2)]
        with pytest.raises(QuotaError):
            issued.issue(greedy, ORIGIN)
        issued.spend(held[0], ORIGIN)
        issued.issue(greedy, ORIGIN)
    issued.issue(OPERATOR, ORIGIN)
    issued.forget("token:link")
    issued.issue(link, ORIGIN)
    clock.advance(30)
    issued.issue(ALICE, ORIGIN)
    issued.issue(ALICE, ORIGIN)
    assert len(issued) == 2


def test_tickets_are_unlike_each_other_and_fit_into_a_subprotocol() -> None:
    issued = tickets()
    made = {issued.issue(ALICE, ORIGIN) for _ in range(100)}
    assert len(made) == 100
    assert all(len(ticket) >= 43 and ticket.replace("-", "").replace("_", "").isalnum() for ticket in made)
    assert all(ticket.encode() not in repr(issued.__dict__).encode() for ticket in made)


@pytest.mark.parametrize("guess", ["", "x", "\ud800", "x" * 100_000])
def test_what_was_never_issued_is_refused(guess: str) -> None:
    with pytest.raises(UnauthorizedError):
        tickets().spend(guess, ORIGIN)


def handshake(*offered: str, access: Access | None = None, held: Tickets | None = None, **headers: str) -> Admission:
    values = {"host": "localhost:4437"} | {name.replace("_", "-"): value for name, value in headers.items()}
    server = ("127.0.0.1", 4437)
    issued = tickets() if held is None else held
    clock = ManualClock()
    known = StoredTokens(MemoryStore(), limits=DEFAULT_LIMITS, clock=clock)
    callers = Callers(access or Access(), known, issued, limits=DEFAULT_LIMITS, clock=clock)
    return admit(Headers(values), offered, callers=callers, scheme="ws", server=server)


def test_a_handshake_is_admitted_with_one_version() -> None:
    assert handshake("unbroken.v0", "unbroken.v1") == Admission(Principal(), "unbroken.v1")


def test_a_handshake_with_a_token_needs_it_or_a_ticket() -> None:
    access, held = Access(token="s3cret"), tickets()
    with pytest.raises(UnauthorizedError):
        handshake("unbroken.v1", access=access)
    assert handshake("unbroken.v1", access=access, authorization="Bearer s3cret").principal == OPERATOR
    offered = ("unbroken.v1", f"ticket.{held.issue(ALICE, ORIGIN)}")
    admission = handshake(*offered, access=access, held=held, origin=ORIGIN)
    assert admission == Admission(None, "unbroken.v1", spent=ALICE), "whether it was revoked is still to be asked"
    with pytest.raises(UnauthorizedError):
        handshake(*offered, access=access, held=held, origin=ORIGIN)


def test_a_bad_ticket_is_refused_also_where_no_token_is_needed() -> None:
    with pytest.raises(UnauthorizedError):
        handshake("unbroken.v1", "ticket.forged", origin=ORIGIN)


@pytest.mark.parametrize("offered", [(), ("unbroken.v2",), ("ticket.x",)])
def test_no_version_in_common_is_told_with_both_sides(offered: tuple[str, ...]) -> None:
    with pytest.raises(VersionError) as caught:
        handshake(*offered)
    assert caught.value.detail["server"] == "unbroken.v1"


def test_a_page_of_another_origin_gets_no_connection_and_wastes_no_ticket() -> None:
    held = tickets()
    ticket = held.issue(ALICE, ORIGIN)
    for origin in ("http://evil.example", "null"):
        with pytest.raises(ForbiddenOriginError):
            handshake("unbroken.v1", f"ticket.{ticket}", held=held, origin=origin)
    with pytest.raises(ForbiddenOriginError):
        handshake("unbroken.v1", f"ticket.{ticket}", held=held, sec_fetch_site="cross-site")
    with pytest.raises(ForbiddenOriginError):
        handshake("unbroken.v1", f"ticket.{ticket}", held=held, host="evil.example:4437")
    with pytest.raises(VersionError):
        handshake("unbroken.v2", f"ticket.{ticket}", held=held, origin=ORIGIN)
    assert held.spend(ticket, ORIGIN) == ALICE
