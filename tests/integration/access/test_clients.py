"""A client whose token ends: it renews in time where it can, says clearly why where it cannot, and never storms."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.house import House, house
from unbroken.client import Client, ConnectionStatus
from unbroken.errors import UnauthorizedError, UnreachableError

pytestmark = pytest.mark.anyio

CEILING = 60


def refusals(made: House) -> float:
    return float(made.server.services.metrics.errors.labels("unauthorized")._value.get())


@pytest.mark.scenario("TC-EDGE-015")
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_client_that_can_get_a_newer_token_renews_before_the_present_one_ends(asynchronous: bool) -> None:
    async with house() as made, asyncio.timeout(CEILING):
        asked = 0
        renewed = asyncio.Event()

        def token() -> str:
            nonlocal asked
            asked += 1
            if asked == 1:
                return made.token(seconds=-3)  # with its leeway, good for two seconds
            renewed.set()
            return made.token(seconds=600, jti=f"n{asked}")

        async def later() -> str:
            return token()

        async with Client(made.server.url, token=later if asynchronous else token) as client:
            await client.wait_status(ConnectionStatus.LIVE)
            await renewed.wait()
            while not any(viewer.principal.credential == "jwt:n2" for viewer in made.server.services.live._viewers):
                await asyncio.sleep(0.01)
            made.clock.advance(60)
            await client.append("a", "still here")
            assert client.status is ConnectionStatus.LIVE
            assert (await client.state("a")).head == 1
        assert refusals(made) == 0


@pytest.mark.scenario("TC-EDGE-015")
async def test_an_expired_token_in_mid_session_is_a_clear_error_and_no_storm() -> None:
    async with house() as made, asyncio.timeout(CEILING):
        token = made.token()
        async with Client(made.server.url, token=token) as client:
            follow = client.follow("a")
            await client.append("a", "one")
            assert (await anext(follow)).message.text == "one"
            made.clock.advance(65)
            with pytest.raises(UnauthorizedError) as caught:
                await anext(follow)
            assert token not in str(caught.value)
            assert client.status is ConnectionStatus.REFUSED
            for _ in range(3):
                with pytest.raises(UnauthorizedError):
                    await client.append("a", "two")
            before = refusals(made)
            with pytest.raises(UnauthorizedError):
                await client.state("a")
            assert refusals(made) - before == 1, "one question, one refusal"
        assert refusals(made) <= 2


@pytest.mark.scenario("TC-EDGE-015")
async def test_a_newer_token_that_is_refused_too_is_not_tried_for_ever() -> None:
    async with house() as made, asyncio.timeout(CEILING):
        asked = 0

        def token() -> str:
            nonlocal asked
            asked += 1
            return "obviously-wrong"

        async with Client(made.server.url, token=token) as client:
            await client.wait_status(ConnectionStatus.REFUSED)
            assert asked == 2
            with pytest.raises(UnauthorizedError):
                await client.state("a")
            assert asked == 4
        assert refusals(made) == 4


async def test_after_sleeping_through_the_end_a_client_comes_back_with_a_newer_token() -> None:
    async with house() as made, asyncio.timeout(CEILING):
        asked = 0
        again = asyncio.Event()

        def token() -> str:
            nonlocal asked
            asked += 1
            if asked > 1:
                again.set()
            return made.token(jti=f"t{asked}")

        async with Client(made.server.url, token=token) as client:
            follow = client.follow("a")
            await client.append("a", "one")
            made.clock.advance(65)
            await again.wait()
            await client.append("a", "two")
            assert [(await anext(follow)).message.text for _ in range(2)] == ["one", "two"]
            assert asked == 2


async def test_a_token_that_cannot_be_had_now_is_waited_for() -> None:
    async with house() as made, asyncio.timeout(CEILING):
        asked = 0

        def token() -> str:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise LookupError("the secret words of the application")
            return made.token()

        async with Client(made.server.url, token=token) as client:
            await client.append("a", "one")
            asked = 0
            with pytest.raises(UnreachableError) as caught:
                await client.state("a")
            assert "secret" not in str(caught.value)
