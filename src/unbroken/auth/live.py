"""Live connections and the credentials that they came with: a connection is as good as its credential, and no longer.

The faces register whoever stays connected. Twice a second those whose credential has expired or was revoked are sent away,
with one question to the store for all of them. It never closes anything itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from unbroken.auth.credentials import Credentials
from unbroken.clock import Clock
from unbroken.errors import StoreError, UnauthorizedError
from unbroken.identity import Principal
from unbroken.limits import Limits

__all__ = ["LiveViewers", "Presence", "Viewer"]

logger = logging.getLogger(__name__)


class Viewer(Protocol):
    """Somebody who stays connected."""

    @property
    def principal(self) -> Principal:
        """With whose credential; may change to a newer one."""
        ...

    def expel(self, error: UnauthorizedError) -> None:
        """Tell why, and leave at once; called at most a few times."""
        ...


class Presence:
    """A viewer that waits in a task: `gone` is set when it has to leave, `error` says why."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.gone = asyncio.Event()
        self.error: UnauthorizedError | None = None

    def expel(self, error: UnauthorizedError) -> None:
        self.error = error
        self.gone.set()


class LiveViewers:
    """Everybody who is connected with a credential that can end. `run` must be running."""

    def __init__(self, credentials: Credentials, *, limits: Limits, clock: Clock) -> None:
        self._credentials = credentials
        self._limits = limits
        self._clock = clock
        self._viewers: dict[Viewer, None] = {}
        self.on_sent_away: Callable[[Principal, str], None] = lambda _whose, _why: None
        """Told of each that was sent away."""

    def __len__(self) -> int:
        return len(self._viewers)

    def add(self, viewer: Viewer) -> None:
        """Watch over `viewer`; who came without a credential, or with one that nobody can take away, is left alone."""
        principal = viewer.principal
        if principal.expires_ms is not None or principal.credential not in {"", "token"}:
            self._viewers[viewer] = None

    def remove(self, viewer: Viewer) -> None:
        """Forget a viewer that has left; idempotent."""
        self._viewers.pop(viewer, None)

    @contextmanager
    def present(self, principal: Principal) -> Iterator[Presence]:
        """A presence that is watched over inside the block."""
        presence = Presence(principal)
        self.add(presence)
        try:
            yield presence
        finally:
            self.remove(presence)

    def expel(self, credential: str) -> int:
        """Send away whoever came with `credential`, now; how many there were."""
        return self._send_away("the token was revoked", lambda viewer: viewer.principal.credential == credential)

    async def run(self) -> None:
        """Look again and again, for ever. A store that hangs does not keep those whose time is over."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._expire())
            tasks.create_task(self._look_up())

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(self._limits.credential_check_seconds)
            now = self._clock.now_ms()
            self._send_away("the token has expired", partial(_ended, now))

    async def _look_up(self) -> None:
        while True:
            await asyncio.sleep(self._limits.credential_check_seconds)
            if self._viewers:
                await self._check()

    async def _check(self) -> None:
        """Send away whose credential was revoked. While the store cannot be asked, what was revoked there is not known."""
        named = {
            viewer.principal.credential: viewer.principal for viewer in self._viewers if viewer.principal.credential
        }
        if not named:
            return
        try:
            revoked = await self._credentials.revoked(named.values())
        except StoreError as error:
            logger.warning("%s: revoked credentials cannot be looked up", error.code)
            return
        if revoked:
            self._send_away("the token was revoked", lambda viewer: viewer.principal.credential in revoked)

    def _send_away(self, why: str, concerned: Callable[[Viewer], bool]) -> int:
        leaving = [viewer for viewer in self._viewers if concerned(viewer)]
        for viewer in leaving:
            self.remove(viewer)
            self.on_sent_away(viewer.principal, why)
            viewer.expel(UnauthorizedError(why))
        return len(leaving)


def _ended(now_ms: int, viewer: Viewer) -> bool:
    expires = viewer.principal.expires_ms
    return expires is not None and expires <= now_ms
