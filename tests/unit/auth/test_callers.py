"""Who is asking: the first that knows the credential decides, and nobody gets in for want of one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from websockets.datastructures import Headers as WireHeaders

from tests.support.parts import ManualClock
from unbroken.auth.access import Access
from unbroken.auth.callers import ANONYMOUS, LOCAL, OPERATOR, Callers, Identify
from unbroken.auth.provider import IdentityProvider
from unbroken.auth.tickets import Tickets
from unbroken.clock import Clock
from unbroken.errors import InvalidError, ProviderUnavailableError, UnauthorizedError, UnbrokenError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.anyio

ALICE = Principal("acme", "alice", credential="app:1")
BOB = Principal("acme", "bob", credential="token:7")
CAROL = Principal("acme", "carol", credential="jwt:9")
SHARED = "a-shared-token-of-a-test"


@dataclass
class Known:
    """A store of one token."""

    gone: set[str] = field(default_factory=set)
    expires_ms: int | None = None

    async def principal_of_token(self, secret: str) -> Principal | None:
        return replace(BOB, expires_ms=self.expires_ms) if secret == "stored" else None

    async def revoked(self, principals: Collection[Principal]) -> frozenset[str]:
        return frozenset(self.gone.intersection(principal.credential for principal in principals))

    async def revoke(self, principal: Principal) -> None:
        self.gone.add(principal.credential)


class Provider:
    """An identity provider that knows one token."""

    async def principal(self, token: str, clock: Clock) -> Principal:
        if token == "away":
            raise ProviderUnavailableError
        if token != "signed":
            raise UnauthorizedError("the token is not valid")
        return CAROL


PROVIDER = cast("IdentityProvider", Provider())
clock = ManualClock()


def callers(access: Access, known: Known | None = None) -> Callers:
    tickets = Tickets(DEFAULT_LIMITS, clock)
    return Callers(
        access, known or Known(), tickets, limits=replace(DEFAULT_LIMITS, identify_seconds_max=0.05), clock=clock
    )


def scope(**headers: str) -> dict[str, Any]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": "GET", "path": "/", "headers": raw, "scheme": "http", "query_string": b""}


async def asked(access: Access, authorization: str | None = None, known: Known | None = None) -> Principal:
    values = {"host": "localhost"} | ({} if authorization is None else {"authorization": authorization})
    made = scope(**values)
    return await callers(access, known).principal(Headers(scope=made), made)


def app(connection: HTTPConnection) -> Principal | None:
    return ALICE if connection.headers.get("authorization") == "Basic app" else None


OPEN = Access()
EXPOSED = Access(exposed=True)
EMBEDDED = Access(embedded=True)
TOKEN = Access(token=SHARED)
ALL = Access(token=SHARED, provider=PROVIDER, identify=app)
PUBLIC = Access(token=SHARED, anonymous=True)


@pytest.mark.parametrize(
    ("access", "authorization", "expected"),
    [
        (OPEN, None, LOCAL),
        (OPEN, "Bearer stored", BOB),
        (EXPOSED, "Bearer stored", BOB),
        (EMBEDDED, None, LOCAL),
        (EMBEDDED, "Bearer of-the-application", LOCAL),
        (EMBEDDED, "Bearer stored", BOB),
        (TOKEN, f"Bearer {SHARED}", OPERATOR),
        (TOKEN, f"bearer   {SHARED} ", OPERATOR),
        (ALL, f"Bearer {SHARED}", OPERATOR),
        (ALL, "Bearer stored", BOB),
        (ALL, "Bearer signed", CAROL),
        (ALL, "Basic app", ALICE),
        (PUBLIC, None, ANONYMOUS),
        (PUBLIC, "Bearer stored", BOB),
    ],
)
async def test_the_first_that_knows_the_credential_says_who_it_is(
    access: Access, authorization: str | None, expected: Principal
) -> None:
    assert await asked(access, authorization) == expected


@pytest.mark.scenario("SEC-001")
@pytest.mark.parametrize(
    ("access", "authorization"),
    [
        (OPEN, "Bearer unknown"),
        (OPEN, "Basic x"),
        (EXPOSED, None),
        (EXPOSED, "Bearer unknown"),
        *[(TOKEN, value) for value in (None, "", "Bearer", "Bearer ", f"Bearer {SHARED}x", f"Bearer {SHARED[:-1]}")],
        *[(TOKEN, value) for value in (f"Bearer {SHARED.upper()}", f"Basic {SHARED}", SHARED, f"Bearer{SHARED}")],
        (TOKEN, "Bearer " + "x" * 20_000),
        (TOKEN, "Bearer \xff"),
        (ALL, None),
        (ALL, "Bearer forged"),
        (ALL, "Basic other"),
        (PUBLIC, "Bearer unknown"),
        (PUBLIC, "Ticket unknown"),
        (Access(provider=PROVIDER), None),
        (Access(identify=app), None),
    ],
)
async def test_anything_else_is_nobody(access: Access, authorization: str | None) -> None:
    with pytest.raises(UnauthorizedError):
        await asked(access, authorization)


async def test_two_credentials_are_none() -> None:
    made = callers(TOKEN)
    for headers in (
        Headers(raw=[(b"authorization", f"Bearer {SHARED}".encode()), (b"authorization", b"Bearer x")]),
        WireHeaders([("Authorization", f"Bearer {SHARED}"), ("authorization", "Bearer x")]),
    ):
        with pytest.raises(InvalidError):
            await made.principal(headers)


async def test_an_expired_or_revoked_credential_is_none() -> None:
    for access in (OPEN, EMBEDDED, TOKEN):
        with pytest.raises(UnauthorizedError, match="expired"):
            await asked(access, "Bearer stored", Known(expires_ms=clock.ms))
    for access, value, credential in ((ALL, "Bearer signed", "jwt:9"), (ALL, "Basic app", "app:1")):
        with pytest.raises(UnauthorizedError, match="revoked"):
            await asked(access, value, Known(gone={credential}))


async def test_a_provider_that_is_away_is_not_a_refusal() -> None:
    with pytest.raises(ProviderUnavailableError):
        await asked(Access(provider=PROVIDER), "Bearer away")


async def test_nothing_is_waited_for_where_nothing_is_to_be_asked() -> None:
    assert callers(OPEN).at_once(Headers({})) is LOCAL
    assert callers(TOKEN).at_once(Headers({"authorization": f"Bearer {SHARED}"})) is OPERATOR
    assert callers(PUBLIC).at_once(Headers({})) is ANONYMOUS
    assert callers(OPEN).at_once(Headers({"authorization": "Bearer x"})) is None
    assert callers(Access(identify=app)).at_once(Headers({})) is None


async def test_an_application_may_take_its_time_but_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def slow(connection: HTTPConnection) -> Principal | None:
        await asyncio.sleep(0)
        return ALICE

    async def stuck(connection: HTTPConnection) -> Principal | None:
        await asyncio.Event().wait()
        return ALICE

    def failing(connection: HTTPConnection) -> Principal | None:
        raise TimeoutError("the database of the application, with its secret")

    assert await asked(Access(identify=slow)) == ALICE
    with caplog.at_level(logging.ERROR):
        for identify in (stuck, failing):
            with pytest.raises(ProviderUnavailableError) as caught:
                await asked(Access(identify=identify))
            assert "secret" not in str(caught.value)
    assert [record.message for record in caplog.records] == ["the application did not say in time who is asking"] * 2
    assert "in failing" in caplog.text


async def test_a_failure_of_the_application_is_ours_to_hide(caplog: pytest.LogCaptureFixture) -> None:
    def broken(connection: HTTPConnection) -> Principal | None:
        raise LookupError("the secret of the application")

    def confused(connection: HTTPConnection) -> Principal | None:
        return cast("Principal", {"sub": "alice"})

    for identify in (broken, confused):
        with caplog.at_level(logging.ERROR), pytest.raises(UnbrokenError) as caught:
            await asked(Access(identify=cast("Identify", identify)))
        assert (caught.value.code, caught.value.http_status) == ("internal", 500)
        assert "secret" not in str(caught.value)
    assert len(caplog.records) == 2


async def test_an_application_may_refuse_in_its_own_words() -> None:
    def refusing(connection: HTTPConnection) -> Principal | None:
        raise UnauthorizedError("log in again")

    with pytest.raises(UnauthorizedError, match="log in again"):
        await asked(Access(identify=refusing))


async def test_an_application_is_not_asked_for_a_token_on_a_live_connection() -> None:
    made = callers(ALL)
    assert await made.of_token("signed") == CAROL
    for token in ("", "app", "x" * 20_000):
        with pytest.raises(UnauthorizedError):
            await made.of_token(token)


async def test_a_ticket_opens_one_reading_request_from_where_it_was_asked_for() -> None:
    made = callers(TOKEN)

    async def spent(ticket: str, method: str = "GET", **headers: str) -> Principal:
        request = scope(host="localhost:1", authorization=f"Ticket {ticket}", **headers) | {"method": method}
        return await made.principal(Headers(scope=request), request)

    ticket = made.tickets.issue(BOB, "http://localhost:1")
    with pytest.raises(UnauthorizedError):
        await spent(ticket, "POST", origin="http://localhost:1")
    assert await spent(ticket) == BOB, "a page of the server reads without naming its origin"
    with pytest.raises(UnauthorizedError):
        await spent(ticket)
    ticket = made.tickets.issue(BOB, "https://app.example")
    with pytest.raises(UnauthorizedError):
        await spent(ticket)


async def test_a_ticket_is_as_good_as_its_credential_is_when_it_is_spent() -> None:
    known = Known()
    made = callers(TOKEN, known)
    assert await made.still_good(BOB) == BOB
    known.gone = {BOB.credential, OPERATOR.credential}
    assert await made.still_good(OPERATOR) == OPERATOR, "the shared token is not revoked, it is replaced"
    with pytest.raises(UnauthorizedError, match="revoked"):
        await made.still_good(BOB)
    with pytest.raises(UnauthorizedError, match="expired"):
        await made.still_good(replace(CAROL, expires_ms=clock.ms))
