"""Who is asking: the one chain from the headers of a request to a `Principal`.

Every face asks it once for each request. The first that knows the credential decides: the shared token, a stored token, the
identity provider, the application. It never tells anybody more than that a credential is good or not.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.requests import HTTPConnection

from unbroken.auth.access import Access, HeaderValues, header
from unbroken.auth.credentials import Credentials
from unbroken.auth.tickets import Tickets
from unbroken.clock import Clock
from unbroken.errors import InvalidError, ProviderUnavailableError, UnauthorizedError, UnbrokenError
from unbroken.identity import Principal
from unbroken.limits import Limits

__all__ = ["ANONYMOUS", "LOCAL", "OPERATOR", "Callers", "Identify", "Scope"]

logger = logging.getLogger(__name__)

LOCAL: Final = Principal()
"""Whoever asks while nothing is set up, on the machine itself."""
OPERATOR: Final = Principal(credential="token")
"""Who has the shared token."""
ANONYMOUS: Final = Principal(subject="anonymous")

Identify = Callable[[HTTPConnection], "Awaitable[Principal | None] | Principal | None"]
"""An application's answer to who is asking: None when it does not know. It sees cookies, headers and its own session.

The principal's `credential` names one login and never another: what was revoked once (`POST /v1/logout`) is refused for
ever."""
Scope = MutableMapping[str, Any]
"""What ASGI says of a connection."""


class Callers:
    """Finds the principal of a request, by the rules of `access`."""

    def __init__(
        self, access: Access, credentials: Credentials, tickets: Tickets, *, limits: Limits, clock: Clock
    ) -> None:
        self.access = access
        self.tickets = tickets
        self._credentials = credentials
        self._limits = limits
        self._clock = clock

    def at_once(self, headers: HeaderValues) -> Principal | None:
        """The principal where that needs no waiting; None where `principal` has to be asked. Raises as it does."""
        access = self.access
        given = header(headers, "authorization")
        if given is None:
            return self._without() if access.identify is None else None
        if access.token is not None and self._is_shared(_credential(given, "bearer")):
            return OPERATOR
        return None

    async def principal(self, headers: HeaderValues, scope: Scope | None = None) -> Principal:
        """Who is asking.

        `scope` is the ASGI scope, which the application's own answer is made from. Raises `UnauthorizedError` for whoever
        has no valid credential, `ProviderUnavailableError` when that cannot be said now.
        """
        found = self.at_once(headers)
        if found is not None:
            return found
        given = header(headers, "authorization")
        ticket = None if given is None else _credential(given, "ticket")
        if ticket is not None:
            return await self.still_good(self._of_ticket(ticket, headers, scope))
        refusal: UnauthorizedError | None = None
        if given is not None:
            refusal = UnauthorizedError("the request carries no valid credential")
            try:
                known = await self._known(_credential(given, "bearer") or "")
            except UnauthorizedError as error:
                if self.access.identify is None:
                    raise
                known, refusal = None, error
            if known is not None:
                return known
        return await self._of_application(scope, refusal)

    async def of_token(self, token: str) -> Principal:
        """Whose bearer token that is; the application is not asked. Raises as `principal`."""
        found = await self._known(token)
        if found is None:
            raise UnauthorizedError("the token is not valid")
        return found

    async def still_good(self, found: Principal) -> Principal:
        """`found`, unless its credential has been revoked or has ended since it was shown; raises as `principal`."""
        if found != OPERATOR:  # nobody can take that one away
            await self._not_revoked(found)
        return self._in_force(found)

    async def _known(self, token: str) -> Principal | None:
        """Whose token that is; None for what is none of ours, `UnauthorizedError` for one that is no good any more."""
        if self._is_shared(token):
            return OPERATOR
        if not token or len(token) > self._limits.jwt_bytes_max:
            return None
        found = await self._credentials.principal_of_token(token)
        if found is not None:
            return self._in_force(found)
        provider = self.access.provider
        return None if provider is None else await self._not_revoked(await provider.principal(token, self._clock))

    async def _of_application(self, scope: Scope | None, refusal: UnauthorizedError | None) -> Principal:
        access = self.access
        if access.identify is not None and scope is not None:
            found = await self._asked(access.identify, scope)
            if found is not None:
                return await self._not_revoked(self._in_force(found))
        if refusal is not None and not (access.embedded and access.unguarded):
            raise refusal  # in an application that guards itself, a credential that we do not know is the application's
        return self._without()

    async def _asked(self, identify: Identify, scope: Scope) -> Principal | None:
        """What the application says. Its own failures are told to the log, and to the peer only that there was one."""
        try:
            async with asyncio.timeout(self._limits.identify_seconds_max):
                answer = identify(HTTPConnection(scope))
                found: object = await answer if inspect.isawaitable(answer) else answer
        except UnbrokenError:
            raise
        except TimeoutError:
            logger.exception("the application did not say in time who is asking")
            raise ProviderUnavailableError("the application did not say in time who is asking") from None
        except Exception:
            logger.exception("the application could not say who is asking")
            raise UnbrokenError("an unexpected error") from None
        if found is None or isinstance(found, Principal):
            return found
        logger.error("identify gave a %s; it gives a Principal or None", type(found).__name__)
        raise UnbrokenError("an unexpected error")

    def _of_ticket(self, ticket: str, headers: HeaderValues, scope: Scope | None) -> Principal:
        """Whose ticket that is: good for one reading request, from where it was asked for.

        A browser names no origin when a page reads from its own server.
        """
        if scope is None or scope.get("method") != "GET":
            raise UnauthorizedError("a ticket opens a WebSocket, or one stream of events")
        scheme = scope.get("scheme", "http")
        return self.tickets.spend(
            ticket,
            header(headers, "origin"),
            own=lambda origin: self.access.own_origin(origin, headers, scheme),
        )

    def _without(self) -> Principal:
        """Who comes without a credential."""
        if self.access.anonymous:
            return ANONYMOUS
        if self.access.unguarded:
            return LOCAL
        raise UnauthorizedError("the request carries no valid credential")

    def _is_shared(self, token: str | None) -> bool:
        shared = self.access.token
        return shared is not None and token is not None and hmac.compare_digest(_bytes(token), _bytes(shared))

    def _in_force(self, found: Principal) -> Principal:
        if found.expires_ms is not None and found.expires_ms <= self._clock.now_ms():
            raise UnauthorizedError("the token has expired")
        return found

    async def _not_revoked(self, found: Principal) -> Principal:
        if found.credential and await self._credentials.revoked((found,)):
            raise UnauthorizedError("the token was revoked")
        return found


def _credential(authorization: str, scheme: str) -> str | None:
    """What follows the name of `scheme`; None for another one."""
    if len(authorization) > 64 * 1024:
        raise InvalidError("the header authorization is too long", field="authorization")
    named, _, given = authorization.partition(" ")
    return given.strip() if named.lower() == scheme else None


def _bytes(token: str) -> bytes:
    return token.encode(errors="replace")
