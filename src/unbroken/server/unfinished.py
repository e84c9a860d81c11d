"""Frames that have come and are not handled, over all WebSockets: how many bytes they hold, and for how long.

Each socket notes at the end of a read what it keeps of frames that are not whole, each `Inbox` what waits in it; there is one
`Unfinished` for a server, which lets go of who takes too much or too long. It knows sizes and times, never contents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from unbroken.errors import OverloadedError
from unbroken.quotas import is_charged

if TYPE_CHECKING:
    from unbroken.identity import Principal
    from unbroken.limits import Limits

__all__ = ["Receiver", "Unfinished"]


class Receiver(Protocol):
    """What holds frames of one WebSocket: those of which a part is there, or those that wait."""

    @property
    def principal(self) -> Principal:
        """Whose connection it is."""
        ...

    @property
    def excused(self) -> bool:
        """Whether it goes on for reasons of our own, and not of its peer, or not at all."""
        ...

    @property
    def dispensable(self) -> bool:
        """Whether to let go of it would make room now."""
        ...

    def give_up(self, error: OverloadedError | None) -> None:
        """Let go of the frames and of the connection, because of `error` or (None) because one took too long."""
        ...


class _Account:
    """What the connections of one owner hold."""

    __slots__ = ("bytes", "bytes_max", "key", "parts")

    def __init__(self, key: tuple[str, str, bool], bytes_max: int) -> None:
        self.key = key
        self.bytes = 0
        self.bytes_max = bytes_max
        self.parts: dict[Receiver, _Part] = {}

    def weakest(self, now: float) -> Receiver | None:
        """Of its larger parts that can be let go, the one that comes slowest."""
        parts = [(receiver, part) for receiver, part in self.parts.items() if receiver.dispensable]
        total = sum(part.bytes for _, part in parts)
        large = [(receiver, part) for receiver, part in parts if part.bytes * len(parts) >= total]
        return min(large, key=lambda found: found[1].bytes / (now - found[1].since + 1))[0] if large else None


class _Part:
    __slots__ = ("account", "bytes", "since")

    def __init__(self, account: _Account, since: float) -> None:
        self.account = account
        self.bytes = 0
        self.since = since


class Unfinished:
    """The frames of one server that are not whole, or not handled. Belongs to one event loop."""

    def __init__(self, limits: Limits, *, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        self._parts: dict[Receiver, _Part] = {}
        self._accounts: dict[tuple[str, str, bool], _Account] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._parts)

    def note(self, receiver: Receiver, size_bytes: int, *, fresh: bool) -> None:
        """So much is there now; `fresh` when it is of another frame than at the last time. 0: there is nothing.

        Beyond what one owner may hold it loses a connection; beyond what all may, of the tenant that holds most the owner
        that holds most.
        """
        part = self._parts.get(receiver)
        if not size_bytes:
            self.forget(receiver)
            return
        if part is None:
            account = self._account(receiver.principal)
            part = self._parts[receiver] = account.parts[receiver] = _Part(account, self._now())
        else:
            account = part.account
            if fresh:
                part.since = self._now()
        more = size_bytes - part.bytes
        part.bytes = size_bytes
        account.bytes += more
        self.bytes += more
        if account.bytes > account.bytes_max or self.bytes > self._limits.unfinished_frames_bytes_max:
            self._relieve(account)

    def crowded(self, receiver: Receiver) -> bool:
        """Whether it holds anything, and its owner more than half of what that may: to be read no faster than handled."""
        part = self._parts.get(receiver)
        return part is not None and 2 * part.account.bytes > part.account.bytes_max

    def forget(self, receiver: Receiver) -> None:
        """It holds nothing any more. Idempotent."""
        part = self._parts.pop(receiver, None)
        if part is not None:
            account = part.account
            self.bytes -= part.bytes
            account.bytes -= part.bytes
            del account.parts[receiver]
            if not account.parts:
                del self._accounts[account.key]

    def check(self, *, excused: bool = False) -> None:
        """Give up the frames that have been underway for too long; with `excused` nobody could be heard until now."""
        now = self._now()
        for receiver, part in list(self._parts.items()):
            if excused or receiver.excused:
                part.since = now
            elif now - part.since > self._limits.frame_seconds_max:
                self._give_up(receiver, None)

    def _account(self, principal: Principal) -> _Account:
        key = _key(principal)
        account = self._accounts.get(key)
        if account is None:
            most = self._limits.unfinished_frames_bytes_max
            if is_charged(principal):
                most = self._limits.owner_unfinished_frames_bytes_max or most
            account = self._accounts[key] = _Account(key, most)
        return account

    def _relieve(self, account: _Account) -> None:
        """Let go of parts until there is no more than there may be, of `account` and of all."""
        now = self._now()
        while account.bytes > account.bytes_max and (found := account.weakest(now)) is not None:
            self._give_up(found, _too_much("owner_unfinished_frames_bytes_max"))
        while self.bytes > self._limits.unfinished_frames_bytes_max:
            tenants: Counter[str] = Counter()
            for each in self._accounts.values():
                tenants[each.key[0]] += each.bytes
            candidates = [
                ((tenants[each.key[0]], each.bytes), found)
                for each in self._accounts.values()
                if (found := each.weakest(now)) is not None
            ]
            if not candidates:
                return
            self._give_up(
                max(candidates, key=lambda candidate: candidate[0])[1], _too_much("unfinished_frames_bytes_max")
            )

    def _give_up(self, receiver: Receiver, error: OverloadedError | None) -> None:
        self.forget(receiver)
        receiver.give_up(error)


def _key(principal: Principal) -> tuple[str, str, bool]:
    """Whose account it is: what the operator has handed on is not its own."""
    return principal.tenant, principal.subject, is_charged(principal)


def _too_much(limit: str) -> OverloadedError:
    return OverloadedError("too much of frames that are not whole, or not handled yet", limit=limit)
