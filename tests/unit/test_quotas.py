"""Quotas: counted by whose things are meant, for the owner and for the tenant; rates that hold over any second."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import CorruptError, QuotaError
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.quotas import Bucket, Charge, Quotas, Usage

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
LIMITS = replace(
    DEFAULT_LIMITS,
    owner_connections_max=2,
    owner_requests_per_second_max=3,
    owner_messages_per_second_max=10,
    owner_bytes_per_second_max=1_000,
    owner_stored_bytes_max=5_000,
    owner_open_streams_max=2,
    tenant_connections_max=3,
    tenant_messages_per_second_max=15,
    tenant_bytes_per_second_max=0,
    tenant_stored_bytes_max=8_000,
    append_wait_seconds_max=1.0,
)
ALICE, BOB, EVE = Principal("acme", "alice"), Principal("acme", "bob"), Principal("other", "alice")


class World:
    """A clock that is set by hand and what a store would say."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = 1_000.0
        self.held: dict[tuple[str, str | None], Usage] = {}
        self.quotas = Quotas(limits, self.usage, now=lambda: self.now)

    async def usage(self, tenant: str, subject: str | None) -> Usage:
        return self.held.get((tenant, subject), Usage())

    def append(self, principal: Principal, messages: int = 1, size_bytes: int = 1) -> None:
        """One that is stored."""
        self.quotas.headroom(principal).take(messages, size_bytes)
        self.quotas.settle(Charge(principal, size_bytes), stored=True)

    async def create(self, principal: Principal) -> None:
        """One that is stored."""
        await self.quotas.create(principal)
        self.quotas.settle(Charge(principal, 0, streams=1), stored=True)


def limit_of(error: pytest.ExceptionInfo[QuotaError]) -> object:
    return error.value.detail["limit"]


@given(
    rate=st.integers(1, 1_000),
    tries=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 3_000)), max_size=60),
)
def test_no_second_takes_more_than_a_second_s_worth_beside_one_append(
    rate: int, tries: list[tuple[float, int]]
) -> None:
    now, bucket = 0.0, Bucket(rate, 0.0)
    passed: list[tuple[float, int]] = []
    for pause, amount in tries:
        now += pause
        if not bucket.wait(now):
            bucket.take(amount)
            passed.append((now, amount))
    for begin, (since, _) in enumerate(passed):
        for end in range(begin, len(passed)):
            amounts = [amount for _, amount in passed[begin:end]]  # the last may go into debt
            assert sum(amounts) <= rate * (1 + passed[end][0] - since) + 1e-6


@given(rate=st.integers(1, 1_000), amount=st.integers(1, 10_000))
def test_who_waits_as_long_as_it_is_told_passes(rate: int, amount: int) -> None:
    bucket = Bucket(rate, 0.0)
    bucket.take(amount)
    seconds = bucket.wait(0.0)
    assert bucket.wait(seconds + 1e-6) == 0


def test_connections_are_counted_by_owner_and_by_tenant_whatever_the_credential() -> None:
    quotas = World().quotas
    quotas.enter("connections", ALICE)
    quotas.enter("connections", replace(ALICE, actor="phone", credential="token:2"))
    with pytest.raises(QuotaError) as error:
        quotas.enter("connections", replace(ALICE, credential="token:3"))
    assert limit_of(error) == "owner_connections_max"
    quotas.enter("connections", BOB)
    with pytest.raises(QuotaError) as error:
        quotas.enter("connections", BOB)
    assert limit_of(error) == "tenant_connections_max"
    quotas.enter("connections", EVE)
    quotas.leave("connections", ALICE)
    quotas.enter("connections", BOB)


def test_a_refused_connection_is_not_counted_for_the_tenant_either() -> None:
    quotas = World().quotas
    for _ in range(2):
        quotas.enter("connections", ALICE)
    for _ in range(5):
        with pytest.raises(QuotaError):
            quotas.enter("connections", ALICE)
    quotas.enter("connections", BOB)


def test_requests_come_again_with_time() -> None:
    world = World()
    for _ in range(3):
        world.quotas.request(ALICE)
    with pytest.raises(QuotaError) as error:
        world.quotas.request(ALICE)
    assert limit_of(error) == "owner_requests_per_second_max"
    world.quotas.request(BOB)
    world.now += 1
    world.quotas.request(ALICE)


def test_requests_and_frames_of_all_owners_of_a_tenant_are_counted_together() -> None:
    world = World(replace(LIMITS, owner_requests_per_second_max=0, tenant_requests_per_second_max=3))
    world.quotas.request(ALICE)
    world.quotas.handshake(BOB)
    assert world.quotas.at_once(replace(BOB, subject="carol"))
    for ask in (world.quotas.request, world.quotas.handshake):
        with pytest.raises(QuotaError) as error:
            ask(ALICE)
        assert limit_of(error) == "tenant_requests_per_second_max"
    assert not world.quotas.at_once(BOB)
    world.quotas.request(EVE)
    world.now += 1
    world.quotas.request(ALICE)


def test_appends_are_bounded_in_messages_and_bytes_and_a_refused_one_costs_nothing() -> None:
    world = World()
    world.append(ALICE, messages=10)
    for _ in range(100):
        with pytest.raises(QuotaError, match="messages per second of one owner"):
            world.append(ALICE)
    world.now += 0.2
    world.append(ALICE)
    world.append(EVE, size_bytes=3_000)
    with pytest.raises(QuotaError) as error:
        world.append(EVE)
    assert limit_of(error) == "owner_bytes_per_second_max"
    assert error.value.detail["retry_after_seconds"] == 3


def test_one_owner_may_use_up_what_is_the_tenant_s_but_no_other_tenant_s() -> None:
    world = World()
    world.append(ALICE, messages=10)
    world.append(BOB, messages=10)
    carol = replace(BOB, subject="carol")
    with pytest.raises(QuotaError) as error:
        world.append(carol)
    assert limit_of(error) == "tenant_messages_per_second_max"
    world.append(EVE)


async def test_new_streams_are_refused_when_there_are_too_many_open_ones() -> None:
    world = World()
    world.held["acme", "alice"] = Usage(open_streams=1)
    await world.create(ALICE)
    with pytest.raises(QuotaError) as error:
        await world.create(ALICE)
    assert limit_of(error) == "owner_open_streams_max"
    await world.create(BOB)
    world.held["acme", "alice"] = Usage(open_streams=0)  # some have ended
    await world.quotas.refresh()
    await world.create(ALICE)


async def test_what_is_stored_is_bounded_also_between_two_looks() -> None:
    world = World()
    await world.create(ALICE)
    await world.create(BOB)
    for _ in range(5):
        world.append(ALICE, size_bytes=1_000)
        world.now += 2
    with pytest.raises(QuotaError) as error:
        world.append(ALICE)
    assert limit_of(error) == "owner_stored_bytes_max"
    for _ in range(3):
        world.append(BOB, size_bytes=1_000)
        world.now += 2
    with pytest.raises(QuotaError) as error:
        world.append(BOB)
    assert limit_of(error) == "tenant_stored_bytes_max"
    world.held["acme", "alice"] = Usage(stored_bytes=10)
    await world.quotas.refresh()
    world.append(ALICE)


async def test_a_look_that_fails_leaves_what_is_known_and_does_not_keep_others_from_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    for principal in (ALICE, EVE):
        await world.create(principal)
        world.append(principal, size_bytes=4_000)
    usage = world.usage

    async def faulty(tenant: str, subject: str | None) -> Usage:
        if tenant == ALICE.tenant:
            raise CorruptError("a page is damaged")
        return await usage(tenant, subject)

    monkeypatch.setattr(world.quotas, "_usage_of", faulty)
    await world.quotas.refresh()
    world.now += 10
    world.append(ALICE, size_bytes=1_000)
    with pytest.raises(QuotaError) as error:
        world.append(ALICE)
    assert limit_of(error) == "owner_stored_bytes_max"
    world.append(EVE, size_bytes=1_000)
    world.now += 10
    world.append(EVE)


async def test_the_first_append_after_a_start_or_a_while_knows_what_is_stored_already() -> None:
    world = World()
    world.held["acme", "alice"] = Usage(stored_bytes=5_000)
    world.held["acme", None] = Usage(stored_bytes=8_000)
    world.held["other", "alice"] = Usage(stored_bytes=4_999)
    for _ in range(2):
        for principal, limit in ((ALICE, "owner_stored_bytes_max"), (BOB, "tenant_stored_bytes_max")):
            await world.quotas.pace(principal)
            with pytest.raises(QuotaError) as error:
                world.append(principal)
            assert limit_of(error) == limit
        await world.quotas.pace(EVE)
        world.append(EVE)
        world.now += 60
        await world.quotas.refresh()  # and everybody is forgotten
        assert len(world.quotas) == 0


async def test_of_many_who_append_at_once_one_looks_and_where_nobody_can_say_it_counts_from_nothing() -> None:
    world, looks = World(), []

    async def usage(tenant: str, subject: str | None) -> Usage:
        looks.append((tenant, subject))
        await asyncio.sleep(0)
        if tenant == EVE.tenant:
            raise CorruptError("a page is damaged")
        return Usage(stored_bytes=4_000)

    world.quotas = Quotas(LIMITS, usage, now=lambda: world.now)
    await asyncio.gather(*[world.quotas.pace(principal) for principal in [ALICE, EVE] * 10])
    assert sorted(looks, key=str) == [("acme", "alice"), ("acme", None), ("other", "alice"), ("other", None)]
    for principal, size_bytes in ((ALICE, 1_000), (EVE, 5_000)):
        world.append(principal, size_bytes=size_bytes)
        world.now += 10
        with pytest.raises(QuotaError) as error:
            world.append(principal)
        assert limit_of(error) == "owner_stored_bytes_max"


async def test_what_was_not_stored_is_given_back_and_what_is_undecided_counts() -> None:
    world = World()
    await world.quotas.refresh()
    for principal in (ALICE, BOB):
        await world.create(principal)
    for _ in range(20):
        world.quotas.headroom(ALICE).take(1, 4_999)
        world.quotas.settle(Charge(ALICE, 4_999), stored=False)
        await world.quotas.create(ALICE)
        world.quotas.settle(Charge(ALICE, 0, streams=1), stored=False)
        world.now += 10
    world.append(BOB)
    world.quotas.headroom(ALICE).take(1, 5_000)
    world.now += 10
    await world.quotas.refresh()  # the store does not hold it yet
    with pytest.raises(QuotaError) as error:
        world.append(ALICE)
    assert limit_of(error) == "owner_stored_bytes_max"
    world.quotas.settle(Charge(ALICE, 5_000), stored=False)
    world.append(ALICE)


async def test_an_account_with_something_undecided_is_not_forgotten() -> None:
    world = World()
    world.quotas.headroom(ALICE).take(1, 100)
    for _ in range(2):
        world.now += 60
        await world.quotas.refresh()
    assert len(world.quotas) == 2
    world.quotas.settle(Charge(ALICE, 100), stored=False)
    for _ in range(2):
        world.now += 60
        await world.quotas.refresh()
    assert len(world.quotas) == 0


async def test_pace_waits_for_a_short_time_and_refuses_a_long_one() -> None:
    world = World()
    await world.quotas.pace(ALICE)
    world.append(ALICE, messages=100)
    with pytest.raises(QuotaError) as error:
        await world.quotas.pace(ALICE)
    assert limit_of(error) == "owner_messages_per_second_max"
    world.now += 20
    await world.quotas.pace(ALICE)


async def test_an_account_is_forgotten_when_nothing_is_taken_and_nothing_owed() -> None:
    world = World()
    world.append(ALICE, messages=600)  # 59 seconds of debt
    for _ in range(2):
        world.now += 20  # more than lies between two looks
        await world.quotas.refresh()
    with pytest.raises(QuotaError):
        world.append(ALICE)
    world.quotas.enter("connections", BOB)
    world.now += 60
    await world.quotas.refresh()
    assert len(world.quotas) == 2  # bob, and the tenant he is in
    world.quotas.leave("connections", BOB)
    world.now += 60
    await world.quotas.refresh()
    assert len(world.quotas) == 0


def test_each_refusal_is_told_with_whose_account_it_was() -> None:
    world, told = World(), []
    world.quotas.on_exceeded = lambda error, whose: told.append((error.detail["limit"], whose))
    for principal in (ALICE, ALICE, ALICE, BOB, BOB):
        with suppress(QuotaError):
            world.quotas.enter("connections", principal)
    assert told == [("owner_connections_max", ALICE), ("tenant_connections_max", Principal("acme", ""))]


def test_the_operator_has_no_bounds() -> None:
    world, local = World(), Principal()
    for _ in range(1_000):
        world.quotas.request(local)
        world.quotas.enter("connections", local)
        world.append(local, messages=100)
    assert len(world.quotas) == 0


async def test_what_the_operator_has_handed_on_asks_and_writes_within_bounds() -> None:
    world, link = World(), Principal(grants=(Grant("a", frozenset({Verb.READ})),))
    for _ in range(3):
        world.quotas.request(link)
    with pytest.raises(QuotaError):
        world.quotas.request(link)
    world.quotas.request(Principal())
    world.append(link, messages=10)
    with pytest.raises(QuotaError):
        world.append(link)
    for _ in range(2):
        await world.create(link)
    with pytest.raises(QuotaError) as error:
        await world.create(link)
    assert limit_of(error) == "owner_open_streams_max"
    world.append(Principal(), messages=100)
    await world.create(Principal())


def test_no_bound_is_no_bound() -> None:
    names = [name for name in Limits.__slots__ if name.startswith(("owner_", "tenant_"))]
    world = World(replace(DEFAULT_LIMITS, **dict.fromkeys(names, 0)))
    for _ in range(1_000):
        world.quotas.request(ALICE)
        world.quotas.enter("connections", ALICE)
        world.append(ALICE, messages=100_000, size_bytes=10**9)
