"""What one owner, and one tenant, may take of a server: rates, counts and room, however often they come back.

`Streams` charges appends and new streams, the faces charge connections, subscriptions, requests and what arrives. All of it
is counted by whose things are meant, never by credential, connection or address, so that nobody has more by having many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from math import inf
from typing import Final

from unbroken.errors import CorruptError, QuotaError, UnbrokenError
from unbroken.identity import Principal
from unbroken.limits import Limits

__all__ = [
    "ROW_BYTES",
    "Allowance",
    "Bucket",
    "Charge",
    "Headroom",
    "Quotas",
    "Share",
    "Usage",
    "is_charged",
    "kept_bytes",
]

logger = logging.getLogger(__name__)

LOCAL: Final = Principal()
COUNT_RETRY_SECONDS: Final = 5
ROOM_RETRY_SECONDS: Final = 60
ROW_BYTES: Final = 512
"""What a stream or a session is taken to cost besides its messages and texts."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an owner or a tenant may take; 0 is no bound.

    Rates are by second; what is larger than a second's worth passes and is paid for afterwards.
    """

    connections: int = 0
    subscriptions: int = 0
    arriving_bytes: int = 0
    requests_per_second: int = 0
    messages_per_second: int = 0
    bytes_per_second: int = 0
    stored_bytes: int = 0
    open_streams: int = 0

    @classmethod
    def of(cls, limits: Limits, whose: str) -> Allowance:
        """The one that `limits` have for an `owner` or a `tenant`."""
        return cls(**{field.name: getattr(limits, f"{whose}_{field.name}_max") for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store holds for somebody: messages, and of each stream and session `kept_bytes`."""

    stored_bytes: int = 0
    open_streams: int = 0


@dataclass(frozen=True, slots=True)
class Charge:
    """The room that a write has taken of `principal`'s and the tenant's, until it is decided."""

    principal: Principal
    size_bytes: int
    streams: int = 0


class Bucket:
    """A token bucket of one second's worth that may go into debt, so that nothing is too large to pass."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._level = float(rate)
        self._at = now

    def left(self, now: float) -> float:
        """How much may pass now; something may while it is 1 or more, and the last may be larger than what is left."""
        if not self._rate:
            return inf
        self._level = min(float(self._rate), self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._level

    def wait(self, now: float) -> float:
        """Seconds until something may pass; 0 when it may now."""
        left = self.left(now)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def take(self, amount: int) -> None:
        """Let `amount` pass."""
        self._level -= amount


class _Account:
    """What somebody takes now."""

    __slots__ = (
        "_quotas",
        "allowance",
        "arriving_bytes",
        "bytes",
        "connections",
        "looking",
        "messages",
        "pending_bytes",
        "pending_streams",
        "principal",
        "requests",
        "seen",
        "subscriptions",
        "usage",
    )

    def __init__(self, quotas: Quotas, tenant: str, subject: str | None, allowance: Allowance) -> None:
        now = quotas.now()
        self._quotas = quotas
        self.principal = Principal(tenant, subject or "")
        self.allowance = allowance
        self.connections = self.subscriptions = self.arriving_bytes = 0
        self.pending_bytes = self.pending_streams = 0
        self.requests = Bucket(allowance.requests_per_second, now)
        self.messages = Bucket(allowance.messages_per_second, now)
        self.bytes = Bucket(allowance.bytes_per_second, now)
        self.usage: Usage | None = None
        self.looking = asyncio.Lock()
        self.seen = now

    @property
    def bounded(self) -> bool:
        """Whether it matters what the store holds for it."""
        return bool(self.allowance.stored_bytes or self.allowance.open_streams)

    def idle(self, now: float) -> bool:
        """Whether nothing is lost when it is forgotten: nothing is taken, and nothing is owed."""
        owed = self.requests.wait(now) or self.append_wait(now)[0]
        undecided = self.pending_bytes or self.pending_streams
        return not (self.connections or self.subscriptions or self.arriving_bytes or undecided or owed)

    def check_count(self, what: str, count: int = 1) -> None:
        most: int = getattr(self.allowance, what)
        if most and getattr(self, what) + count > most:
            raise self.exceeded(what, COUNT_RETRY_SECONDS)

    def check_room(self) -> None:
        most, usage = self.allowance.stored_bytes, self.usage
        if most and usage is not None and usage.stored_bytes + self.pending_bytes >= most:
            raise self.exceeded("stored_bytes", ROOM_RETRY_SECONDS)

    def check_open(self) -> None:
        most, usage = self.allowance.open_streams, self.usage
        if most and usage is not None and usage.open_streams + self.pending_streams >= most:
            raise self.exceeded("open_streams", ROOM_RETRY_SECONDS)

    def append_wait(self, now: float) -> tuple[float, str]:
        """Seconds until an append may pass, and for the sake of which limit."""
        messages, size = self.messages.wait(now), self.bytes.wait(now)
        return (messages, "messages_per_second") if messages >= size else (size, "bytes_per_second")

    def check_append(self, now: float) -> None:
        self.check_room()
        seconds, limit = self.append_wait(now)
        if seconds:
            raise self.exceeded(limit, seconds)

    def headroom(self, now: float) -> tuple[float, float]:
        """How many messages and bytes may be appended now, as `Bucket.left` says it; `QuotaError` when none may."""
        messages, size = self.messages.left(now), self.bytes.left(now)
        most, usage = self.allowance.stored_bytes, self.usage
        if most and usage is not None:
            size = min(size, most - usage.stored_bytes - self.pending_bytes)
        if messages < 1 or size < 1:
            self.check_append(now)
        return messages, size

    def take(self, messages: int, size_bytes: int) -> None:
        self.messages.take(messages)
        self.bytes.take(size_bytes)
        self.pending_bytes += size_bytes

    def settle(self, size_bytes: int, streams: int, *, stored: bool) -> None:
        self.pending_bytes -= size_bytes
        self.pending_streams -= streams
        assert self.pending_bytes >= 0, "what is decided was charged"
        assert self.pending_streams >= 0, "what is decided was charged"
        if stored and self.usage is not None:
            self.usage = Usage(self.usage.stored_bytes + size_bytes, self.usage.open_streams + streams)

    def exceeded(self, what: str, seconds: float) -> QuotaError:
        """The error, of which somebody else is told too."""
        whose = "owner" if self.principal.subject else "tenant"
        most = getattr(self.allowance, what)
        error = QuotaError(
            f"more than the {most} {what.replace('_', ' ')} of one {whose}",
            limit=f"{whose}_{what}_max",
            retry_after_seconds=max(1, round(seconds + 0.5)),
        )
        self._quotas.on_exceeded(error, self.principal)
        return error


class Headroom:
    """What somebody may append within this step of the event loop, in one write or in several that become one.

    Appends may be added while fewer than `messages` and fewer than `size_bytes` were; the last may exceed either.
    """

    __slots__ = ("_accounts", "_principal", "messages", "size_bytes")

    def __init__(self, principal: Principal, accounts: Sequence[_Account], now: float) -> None:
        self._principal = principal
        self._accounts = accounts
        self.messages = self.size_bytes = inf
        for account in accounts:
            messages, size = account.headroom(now)
            self.messages, self.size_bytes = min(self.messages, messages), min(self.size_bytes, size)

    def take(self, messages: int, size_bytes: int) -> Charge:
        """Charge them. Their room is held until `Quotas.settle` says what became of them."""
        for account in self._accounts:
            account.take(messages, size_bytes)
        return Charge(self._principal, size_bytes)


class Share:
    """What one connection takes: its place, and its subscriptions. Closing gives all of it back, once."""

    __slots__ = ("_begun", "_closed", "_principal", "_quotas", "_subscriptions")

    def __init__(self, quotas: Quotas, principal: Principal) -> None:
        self._quotas = quotas
        self._principal = principal
        self._begun = self._closed = False
        self._subscriptions = 0

    def begin(self) -> QuotaError | None:
        """Take a connection's place; the error when there is none."""
        try:
            self._quotas.enter("connections", self._principal)
        except QuotaError as error:
            return error
        self._begun = True
        return None

    def at_once(self) -> bool:
        """Charge a frame that is no append, unless there are too many in a second."""
        return self._quotas.at_once(self._principal)

    async def turn(self) -> None:
        """Charge a frame that is no append when its turn has come; `QuotaError` when that is too far away."""
        await self._quotas.turn(self._principal)

    def resize(self, subscriptions: int) -> None:
        """Have so many subscriptions from now on; `QuotaError`, and no change, when that is more and there are too many."""
        if self._closed:
            return
        if subscriptions > self._subscriptions:
            self._quotas.enter("subscriptions", self._principal, subscriptions - self._subscriptions)
        else:
            self._quotas.leave("subscriptions", self._principal, self._subscriptions - subscriptions)
        self._subscriptions = subscriptions

    def close(self) -> None:
        """Give everything back. Idempotent."""
        if self._begun:
            self._quotas.leave("connections", self._principal)
        self._quotas.leave("subscriptions", self._principal, self._subscriptions)
        self._begun = False
        self._subscriptions = 0
        self._closed = True


class Quotas:
    """The accounts of all owners and tenants that take something now; the operator (`local`) has no bounds.

    Belongs to one event loop. `usage_of` gives what the store holds for a tenant's subject, or (None) for the whole
    tenant; what is appended between two looks is added here, so only other processes' appends may exceed the room,
    and only for `quota_usage_seconds`.
    """

    def __init__(
        self, limits: Limits, usage_of: Callable[[str, str | None], Awaitable[Usage]], *, now: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._usage_of = usage_of
        self.now = now
        self._owner, self._tenant = Allowance.of(limits, "owner"), Allowance.of(limits, "tenant")
        self._accounts: dict[tuple[str, str | None], _Account] = {}
        self.on_exceeded: Callable[[QuotaError, Principal], None] = lambda _error, _whose: None
        """Told of each refusal, and of whose account it was."""

    def __len__(self) -> int:
        return len(self._accounts)

    # --- connections, subscriptions, requests ---------------------------------------------------------------------------

    def request(self, principal: Principal) -> None:
        """Charge one request; `QuotaError` says when to come back."""
        accounts = self._of(principal)
        now = self.now()
        for account in accounts:
            seconds = account.requests.wait(now)
            if seconds:
                raise account.exceeded("requests_per_second", seconds)
        for account in accounts:
            account.requests.take(1)

    def at_once(self, principal: Principal) -> bool:
        """Charge one frame that is no append, if it may pass now; whether it may."""
        accounts = self._of(principal)
        now = self.now()
        if any(account.requests.wait(now) for account in accounts):
            return False
        for account in accounts:
            account.requests.take(1)
        return True

    async def turn(self, principal: Principal) -> None:
        """Charge one frame that is no append and wait until it may pass, behind those that wait already.

        `QuotaError` when that is more than `append_wait_seconds_max` away, and not before they are over: whoever is
        refused again and again costs no more than one who waits. The tenant is charged when the owner's turn has come.
        """
        for account in self._of(principal):
            seconds = account.requests.wait(self.now())
            if seconds > self._limits.append_wait_seconds_max:
                await asyncio.sleep(self._limits.append_wait_seconds_max)
                raise account.exceeded("requests_per_second", seconds)
            account.requests.take(1)
            if seconds:
                await asyncio.sleep(seconds)

    def handshake(self, principal: Principal) -> None:
        """Charge the request for a connection; `QuotaError` where `Share.begin` would refuse it afterwards."""
        self.request(principal)
        for account in self._of(principal):
            account.check_count("connections")

    def enter(self, what: str, principal: Principal, count: int = 1) -> None:
        """Count `count` more of `what` (`connections` and the like); `QuotaError` when there may be no more."""
        accounts = self._of(principal)
        for account in accounts:
            account.check_count(what, count)
        for account in accounts:
            setattr(account, what, getattr(account, what) + count)

    def leave(self, what: str, principal: Principal, count: int = 1) -> None:
        """Count `count` of `what` less."""
        for account in self._of(principal):
            setattr(account, what, getattr(account, what) - count)

    def share(self, principal: Principal) -> Share:
        """What one connection of `principal` will take."""
        return Share(self, principal)

    @contextmanager
    def place(self, principal: Principal) -> Iterator[None]:
        """One connection for the time of the block."""
        self.enter("connections", principal)
        try:
            yield
        finally:
            self.leave("connections", principal)

    # --- appends and streams --------------------------------------------------------------------------------------------

    def headroom(self, principal: Principal) -> Headroom:
        """What may be appended now; `QuotaError` when a rate or the room is used up."""
        return Headroom(principal, self._of(principal), self.now())

    async def pace(self, principal: Principal) -> None:
        """Wait until the rates let an append pass, and know its room; `QuotaError` after `append_wait_seconds_max`."""
        if not is_charged(principal):
            return
        await self.look(principal)
        ends = self.now() + self._limits.append_wait_seconds_max
        while True:
            now = self.now()
            account, (seconds, limit) = max(
                ((account, account.append_wait(now)) for account in self._of(principal)),
                key=lambda found: found[1][0],
            )
            if not seconds:
                return
            if now + seconds > ends:
                raise account.exceeded(limit, seconds)
            await asyncio.sleep(seconds)

    async def create(
        self, principal: Principal, messages: int = 0, size_bytes: int = 0, *, beside_bytes: int = 0
    ) -> None:
        """Charge a new stream and what it begins with; `QuotaError` when there are too many open ones, or no room for any.

        `beside_bytes` is what is kept of it besides its messages, for which no rate holds.
        It is held as one of them, with its room, until `settle` says what became of it.
        """
        accounts, now = await self.look(principal), self.now()
        for account in accounts:
            account.check_open()
            if messages:
                account.check_append(now)
            else:
                account.check_room()
        for account in accounts:
            account.take(messages, size_bytes)
            account.pending_bytes += beside_bytes
            account.pending_streams += 1

    async def keep(self, principal: Principal, size_bytes: int) -> None:
        """Charge room for what is no message; `QuotaError` when there is none. It is held until `settle`."""
        accounts = await self.look(principal)
        for account in accounts:
            account.check_room()
        for account in accounts:
            account.pending_bytes += size_bytes

    def settle(self, charge: Charge, *, stored: bool) -> None:
        """What was charged is decided: it is stored from now on, or its room is given back."""
        for account in self._of(charge.principal):
            account.settle(charge.size_bytes, charge.streams, stored=stored)

    # --- upkeep ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at what the store holds for whoever was there since the last look, for ever."""
        while True:
            await asyncio.sleep(self._limits.quota_usage_seconds)
            await self.refresh()

    async def refresh(self) -> None:
        """One such look; accounts on which nothing happened since the last one are forgotten.

        Where the store cannot say it, what was known is counted on from.
        """
        now, failed = self.now(), None
        before = now - self._limits.quota_usage_seconds
        for key, account in list(self._accounts.items()):
            if account.seen < before and account.idle(now):
                del self._accounts[key]
            elif account.seen >= before and account.bounded:
                try:
                    account.usage = await self._usage_of(*key)
                except UnbrokenError as error:
                    failed = error
        if failed is not None:
            logger.warning("what owners have stored cannot be looked up: %s %s", failed.code, failed)

    def _of(self, principal: Principal) -> tuple[_Account, ...]:
        """The accounts of who asks and of the tenant; none for the operator, but for links and keys handed on by it."""
        if not is_charged(principal):
            return ()
        tenant = principal.tenant
        return self._account(tenant, principal.subject), self._account(tenant, None)

    async def look(self, principal: Principal) -> tuple[_Account, ...]:
        """As `_of`, after a look at what the store holds where none was taken yet; damaged rows count for nothing.

        Afterwards `headroom` knows of it too.
        """
        for account in self._of(principal):
            if account.usage is None and account.bounded:
                async with account.looking:  # of many who come at once one looks
                    with suppress(CorruptError):
                        if account.usage is None:
                            account.usage = await self._usage_of(principal.tenant, account.principal.subject or None)
                    account.usage = account.usage or Usage()
        return self._of(principal)  # again: an account on which nothing happens is forgotten

    def _account(self, tenant: str, subject: str | None) -> _Account:
        account = self._accounts.get((tenant, subject))
        if account is None:
            allowance = self._tenant if subject is None else self._owner
            account = self._accounts[tenant, subject] = _Account(self, tenant, subject, allowance)
        account.seen = self.now()
        return account


def is_charged(principal: Principal) -> bool:
    """Whether what it does is charged to anybody: all but the operator itself, who has no grants."""
    return principal.grants is not None or principal.subject != LOCAL.subject or principal.tenant != LOCAL.tenant


def kept_bytes(*texts: str | None) -> int:
    """What a stream or a session counts for besides messages, with these texts."""
    return ROW_BYTES + sum(len(text.encode()) for text in texts if text is not None)
