"""How long, and for how much, a stranger is listened to: the head of each HTTP request, handshakes included, and how many.

`unbroken serve` gives `bounded_http` to uvicorn, which by itself waits for ever for a head, takes one of any size, and reads
as many requests as come before it has answered the first. It looks at no content; what a body is made of is bounded by the
guard, what is around its parts here, and what comes on a WebSocket by its connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Final

from unbroken.server.malformed import HttpProtocol
from unbroken.server.open_files import open_files_max
from unbroken.server.undelivered import Undelivered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from unbroken.limits import Limits

__all__ = ["BoundedHttp", "Silent", "bounded_http"]

AROUND_BYTES_MAX: Final = 8
"""For each byte of a body: one that comes alone takes five more, its chunk's size and line ends."""


def bounded_http(limits: Limits) -> type[BoundedHttp]:
    """What to give to `uvicorn.Config(http=…)`.

    A peer that has not sent a whole head `handshake_seconds_max` after it connected, or after its first byte on a connection
    that is used again, is cut off; a head of more than `head_bytes_max` bytes is answered 400, and the connection closed.
    `pipelined_requests_max` requests may wait until an earlier one is answered; what a peer sends beyond them is not read any
    more, and the answer to the last of them ends the connection (RFC 9112, 9.3.2 and 9.6). So it is with a handshake that
    does not wait for an answer. What is still to come of a body when the answer was given has `discard_seconds_max`. What is
    around the parts of a body (RFC 9112, 7.1: sizes, extensions, trailers) is bounded as a head is, and by the body's size.
    A peer that does not take its answers for `silence_seconds_max` is cut off. Of the connections on which no request is
    under way (in the handshake of TLS, before a head is whole, with an answer given whatever is still to come of the body,
    or until it is closed) the one that has been silent for longest is cut off when there are more than
    `silent_connections_max`, or half of the files that the process may open: strangers keep nobody out who speaks.
    """
    most = min(limits.silent_connections_max, open_files_max() // 2)

    class Bounded(BoundedHttp):
        seconds_max = limits.handshake_seconds_max
        bytes_max = limits.head_bytes_max
        waiting_max = limits.pipelined_requests_max
        rest_seconds_max = limits.discard_seconds_max
        silence_seconds_max = limits.silence_seconds_max
        silent: ClassVar[Silent] = Silent(most)

    return Bounded


class Silent:
    """The connections of one server on which no request is under way, up to `most`, in the order of their falling silent."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._transports: dict[object, asyncio.Transport] = {}

    def add(self, connection: object, transport: asyncio.Transport) -> None:
        """It is silent from now on, if it was not already; the one that has been for longest may be cut off because of it."""
        self._transports[connection] = transport
        if len(self._transports) > self.most:
            self._transports.pop(next(iter(self._transports))).abort()

    def discard(self, connection: object) -> None:
        """It asks for something, or is gone. Idempotent."""
        self._transports.pop(connection, None)


class BoundedHttp(HttpProtocol):
    """HTTP/1.1 on one connection, within the bounds that `bounded_http` sets and tells."""

    seconds_max: float
    bytes_max: int
    waiting_max: int
    rest_seconds_max: float
    silence_seconds_max: float
    silent: ClassVar[Silent]
    handshake: object = None
    """What is silent in our place while the handshake of TLS is under way."""
    looks_after_answers = True
    """For `direct`, which does it where the server does not."""
    _undelivered: Undelivered
    _patience: asyncio.TimerHandle | None = None
    _rest: asyncio.TimerHandle | None = None
    """Runs while the rest of a body is to come whose request was answered."""
    _head_bytes = 0
    _between = True
    """Whether the next byte begins a head."""
    _ending = False
    """Whether nothing more is read: too many requests wait, and the connection ends with the answer to the last of them."""
    _around = 0
    """What has come of the present body without being part of it, less what its parts allow."""
    _answering: RequestResponseCycle | None = None
    """The request that is answered now, or was last; the newest is `cycle`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._undelivered = Undelivered(transport, self.silence_seconds_max)
        self._wait_for_head()
        self.silent.discard(self.handshake)
        self.handshake = None
        self.falls_silent()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_whole()
        self._undelivered.end()
        if self._rest is not None:
            self._rest.cancel()
        answering = self._answering
        if answering is not None and not answering.response_complete:
            answering.disconnected = True  # uvicorn tells the newest, which may wait for its turn
            answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            # Dropped, one piece for each answer: bytes that are unread at the close take answers away from their reader.
            self.flow.pause_reading()
            return
        if self._between and self._patience is None:
            self._wait_for_head()
        behind_head = not self._between and self._patience is None
        self._around += len(data)
        super().data_received(data)
        self._around = max(self._around, 0) if behind_head and not self._between else 0
        if self._around > self.bytes_max and not self.transport.is_closing():
            self.send_400_response("there is too much around the parts of the body")
        if self._patience is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.bytes_max and not self.transport.is_closing():
                self.send_400_response("the head of the request is too large")

    def handle_websocket_upgrade(self) -> None:
        self._head_is_whole()
        if self._answering is not None and not self._answering.response_complete:
            self._end_with_last_answer()  # the transport is still its answer's
            return
        self._undelivered.end()  # from here on the WebSocket looks after what is not taken
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """The connection ends: the parser has dropped what came behind this request, and would begin somewhere in it."""
        if self.cycle.response_complete:
            self.transport.close()
        else:
            self._end_with_last_answer()

    def send_400_response(self, msg: str) -> None:
        if not self._ending:
            super().send_400_response(msg)
            self.falls_silent()  # over TLS it is not closed before its peer has said so too

    def on_headers_complete(self) -> None:
        self._head_is_whole()
        if len(self.pipeline) >= self.waiting_max:
            self._end_with_last_answer()
            raise ValueError("too many requests wait")  # stops the parser: there may be thousands more in this piece
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.bytes_max:
            raise ValueError("the head of the request is too large")  # the parser's caller answers 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._around -= (1 + AROUND_BYTES_MAX) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._between = True
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._undelivered.watch()
        if not self.cycle.response_complete:
            return
        self.falls_silent()
        if not self._between and not self.transport.is_closing():
            self._rest = self.loop.call_later(self.rest_seconds_max, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._undelivered.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._undelivered.taken()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Callable[..., Awaitable[None]]) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _end_with_last_answer(self) -> None:
        self._ending = True
        self.cycle.keep_alive = False

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._patience = self.loop.call_later(self.seconds_max, self.transport.abort)

    def falls_silent(self) -> None:
        """Whatever was asked for is answered."""
        self.silent.add(self, self.transport)

    def _head_is_whole(self) -> None:
        self._between = False
        self.silent.discard(self)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
