"""The bodies of requests on their way in: how long one may take to arrive, and how much there is of those that are not done.

Both HTTP faces and `unbroken mcp --http` read every body through `Bodies.whole`, when it is known who sends it. Who may not
come in any more while it arrives is told so. It looks at no content; how large one body may be is the guard's matter.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from unbroken.errors import OverloadedError, RequestTimeoutError
from unbroken.identity import Principal

if TYPE_CHECKING:
    from starlette.types import Receive

    from unbroken.auth.live import LiveViewers
    from unbroken.errors import UnauthorizedError
    from unbroken.limits import Limits
    from unbroken.quotas import Quotas

__all__ = ["Bodies"]

RETRY_SECONDS = 5
NOBODY: Final = Principal()


class Bodies:
    """Counts what has come of bodies whose requests are not done: of all senders, and in `quotas` of each owner and tenant.

    Without `quotas` and `live` senders are not told apart, and no credential ends. The first
    `body_uncounted_bytes` of each are free: a body that is no larger is never refused for the sake of others.
    """

    def __init__(self, quotas: Quotas | None, live: LiveViewers | None, limits: Limits) -> None:
        self._live = _Everlasting() if live is None else live
        self._quotas = quotas
        self._limits = limits
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """What is counted now."""
        return self._held

    async def whole(self, receive: Receive, held: ExitStack, principal: Principal = NOBODY) -> bytes:
        """The whole body of one request of `principal`. It counts until `held` is closed, when the request is done.

        `RequestTimeoutError` when nothing comes for `silence_seconds_max`, or on the whole less than
        `body_bytes_per_second_min`; `OverloadedError` when too much is arriving at once; `UnauthorizedError` when the
        credential ends meanwhile; `ClientDisconnect`.
        """
        body, counted = bytearray(), 0
        limits, now = self._limits, asyncio.get_running_loop().time
        grace = now() + limits.silence_seconds_max
        patience = asyncio.timeout_at(grace)
        sender = _Sender(principal, patience)
        self._live.add(sender)
        try:
            async with patience:
                while True:
                    message = await receive()
                    if sender.error is not None:
                        raise sender.error
                    if message["type"] != "http.request":
                        raise ClientDisconnect
                    body += message.get("body", b"")
                    if len(body) > limits.body_uncounted_bytes:
                        self._enter(principal, len(body) - counted)
                        counted = len(body)
                    if not message.get("more_body", False):
                        held.callback(self._leave, principal, counted)
                        counted = 0
                        return bytes(body)
                    least = grace + len(body) / limits.body_bytes_per_second_min
                    patience.reschedule(min(now() + limits.silence_seconds_max, least))
        except TimeoutError:
            if not patience.expired():
                raise
            raise sender.error or RequestTimeoutError() from None
        finally:
            self._live.remove(sender)
            self._leave(principal, counted)

    def _enter(self, principal: Principal, count: int) -> None:
        if self._held + count > self._limits.arriving_bytes_max:
            raise OverloadedError(
                "too many large bodies arrive at once", limit="arriving_bytes_max", retry_after_seconds=RETRY_SECONDS
            )
        if self._quotas is not None:
            self._quotas.enter("arriving_bytes", principal, count)
        self._held += count

    def _leave(self, principal: Principal, count: int) -> None:
        self._held -= count
        if count and self._quotas is not None:
            self._quotas.leave("arriving_bytes", principal, count)


class _Everlasting:
    """In place of `LiveViewers`, where no credential ends."""

    def add(self, viewer: _Sender) -> None: ...

    def remove(self, viewer: _Sender) -> None: ...


class _Sender:
    """Who is listened to as long as its credential is good."""

    __slots__ = ("_patience", "error", "principal")

    def __init__(self, principal: Principal, patience: asyncio.Timeout) -> None:
        self.principal = principal
        self.error: UnauthorizedError | None = None
        self._patience = patience

    def expel(self, error: UnauthorizedError) -> None:
        self.error = error
        self._patience.reschedule(asyncio.get_running_loop().time())
