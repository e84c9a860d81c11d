"""One WebSocket connection after the other for one `ClientSession`: reading, writing, time, and coming back.

`Client` runs one link, and more only where one stream is followed twice. It never decides anything: the session does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from unbroken.client.transport import ConnectFailedError, Connector
from unbroken.client.values import Appended, ConnectionStatus, StatusEvent
from unbroken.errors import DrainingError, TooLargeError, UnauthorizedError, UnbrokenError
from unbroken.protocol import client_outputs as out
from unbroken.protocol.client import ClientSession
from unbroken.protocol.client_chain import Verify
from unbroken.protocol.client_outputs import Output
from unbroken.protocol.client_requests import Request
from unbroken.protocol.codec import encode_client
from unbroken.protocol.frames import ClientFrame, StreamView

__all__ = ["Link", "Outcome", "Watcher"]

Outcome = Appended | tuple[StreamView, bool]
Watcher = Callable[[Output], None]
_ABORT = 4408


class Link:
    """Runs a session. Methods that are not coroutines act at once and never block.

    `run` returns only when it is cancelled or the session was stopped; then every request has failed and every
    watcher was told. A lost connection is no failure of `run`.
    """

    def __init__(self, connector: Connector, on_status: Callable[[StatusEvent], None]) -> None:
        self.session = ClientSession(connector.limits, connector.clock.random)
        self.status = ConnectionStatus.CONNECTING
        self.refusal: UnbrokenError | None = None
        self._connector = connector
        self._on_status = on_status
        self._watchers: dict[str, Watcher] = {}
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}
        self._outgoing: deque[ClientFrame] = deque()
        self._outgoing_ready = asyncio.Event()
        self._woken = asyncio.Event()
        self._timer_at = float("inf")
        self._lost = asyncio.Event()
        self._close: out.CloseNow | None = None
        self._connect_wanted = False
        self._stopped = False
        self._last_error: BaseException | None = None
        self._renewal_wanted = asyncio.Event()
        self._second_chance_at = float("-inf")

    # --- what the client wants ---------------------------------------------------------------------------------------

    async def request(self, frame: Request) -> Outcome:
        """Send until answered, over as many connections as it takes.

        Raises the server's error. Cancelling stops waiting and sending again; the outcome is then unknown.
        """
        key, future = self.begin(frame)
        try:
            return await future
        finally:
            if future.cancelled():
                self.session.forget(key)
            self._outcomes.pop(key, None)

    def begin(self, frame: Request) -> tuple[int, asyncio.Future[Outcome]]:
        """Send now and give the future of the outcome; in order with every other call."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        over = DrainingError("the client is closed") if self._stopped else self.refusal
        if over is not None:
            future.set_exception(over)
            return 0, future
        key, outputs = self.session.request(frame)
        self._outcomes[key] = future
        self._perform(outputs)
        return key, future

    def follows(self, stream: str) -> bool:
        """Whether the one subscription that this link can have for the stream is taken."""
        return stream in self._watchers

    def watched_by(self, stream: str, watcher: Watcher) -> bool:
        """Whether the stream's subscription is the one of `watcher`."""
        return self._watchers.get(stream) == watcher

    def follow(self, stream: str, after: str, watcher: Watcher, *, verify: Verify = False) -> None:
        """Subscribe; `watcher` gets every output of the session that concerns the stream, until it is over."""
        outputs = self.session.follow(stream, after, verify=verify)
        self._watchers[stream] = watcher
        self._perform(outputs)
        if self.refusal is not None:
            self._end_watcher(stream, self.refusal)

    def unfollow(self, stream: str) -> None:
        if self._watchers.pop(stream, None) is not None:
            self._perform(self.session.unfollow(stream))

    def hold(self, holder: str, lease_seconds: float) -> None:
        """Come back in time to renew a lease."""
        self.session.hold(holder, lease_seconds)

    def let_go(self, holder: str) -> None:
        """`holder` keeps no lease any more."""
        self.session.let_go(holder)

    def pause(self, stream: str) -> None:
        self._perform(self.session.pause(stream))

    def resume(self, stream: str) -> None:
        self._perform(self.session.resume(stream))

    def wake(self) -> None:
        self._perform(self.session.wake())

    def restart(self) -> None:
        """Try again after a refusal."""
        self.refusal = None
        self._perform(self.session.start())

    def stop(self) -> None:
        """Leave for good: what is unanswered fails, the connection is closed with 1000, and then `run` returns."""
        if self._stopped:
            return
        self._stopped = True
        self._perform(self.session.stop())
        for stream in list(self._watchers):
            self._end_watcher(stream, DrainingError("the client was closed"))
        self._tell(StatusEvent(ConnectionStatus.CLOSED))
        self._woken.set()

    # --- running -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the session connected until stopped or cancelled."""
        self._perform(self.session.start())
        try:
            while not self._stopped:
                if self._connect_wanted:
                    self._connect_wanted = False
                    await self._connection()
                else:
                    await self._until_due()
                    self._perform(self.session.tick(self._now()))
        finally:
            self.stop()

    async def _connection(self) -> None:
        """One connection from its handshake to its loss."""
        self._lost.clear()
        self._outgoing.clear()
        self._close = None
        try:
            connection = await self._connector.open()
        except ConnectFailedError as error:
            self._last_error = error
            self._perform(self.session.connect_failed(self._now(), error.refusal, retry_after=error.retry_after))
            return
        try:
            if not self._lost.is_set():  # else the client was left during the handshake
                await self._converse(connection)
            await self._leave(connection)
        finally:
            # Nothing waits for a peer that may be gone: what the close handshake did not end, this ends.
            connection.transport.abort()

    async def _converse(self, connection: ClientConnection) -> None:
        """Read, write and keep time until the connection is lost."""
        self._perform(self.session.opened(self._now()))
        async with asyncio.TaskGroup() as group:
            works = (self._read(connection), self._write(connection), self._keep_time(), self._renew())
            tasks = [group.create_task(work) for work in works]
            await self._lost.wait()
            for task in tasks:
                task.cancel()

    async def _leave(self, connection: ClientConnection) -> None:
        """The close handshake, where the session wanted to leave and the peer may be there to answer."""
        if self._close is not None and self._close.code != _ABORT:
            await connection.close(self._close.code, _short(self._close.reason))

    async def _read(self, connection: ClientConnection) -> None:
        try:
            while not self._lost.is_set():
                data = await connection.recv(decode=False)
                self._perform(self.session.receive(data, self._now()))
        except ConnectionClosed as error:
            self._last_error = error
            code = connection.close_code
            self._perform(self.session.closed(self._now(), 1006 if code is None else code))
            self._lost.set()

    async def _write(self, connection: ClientConnection) -> None:
        try:
            while True:
                await self._outgoing_ready.wait()
                while self._outgoing:
                    data = self._encode(self._outgoing.popleft())
                    if data is not None:
                        await connection.send(data, text=True)
                self._outgoing_ready.clear()
        except ConnectionClosed:
            return  # the reader finds the same, with the code

    def _encode(self, frame: ClientFrame) -> bytes | None:
        """The frame's bytes; one that is too large for either end fails its request and nothing else."""
        hello = self.session.hello
        try:
            data = encode_client(frame, self._connector.limits)
            if hello is not None and len(data) > hello.frame_bytes_max:
                raise TooLargeError(
                    f"the server takes frames of {hello.frame_bytes_max} bytes", limit="frame_bytes_max"
                )
        except TooLargeError as error:
            self._perform(self.session.reject(frame, error, self._now()))
            return None
        return data

    async def _renew(self) -> None:
        """Hand on a newer token whenever the present one is about to end; a failure is tried again while there is time."""
        while self._connector.renewable:
            self._renewal_wanted.clear()
            await self._renewal_wanted.wait()
            try:
                token = await self._connector.present_token()
            except UnbrokenError as error:
                self._last_error = error
                continue
            if token is not None:
                self._perform(self.session.renew(token))

    async def _keep_time(self) -> None:
        while not self._lost.is_set():
            await self._until_due()
            self._perform(self.session.tick(self._now()))

    async def _until_due(self) -> None:
        """Wait until the session's next deadline, or an earlier one that came up meanwhile."""
        at = self.session.next_at()
        self._timer_at = float("inf") if at is None else at
        self._woken.clear()
        if self._connect_wanted or self._stopped:
            return
        try:
            async with asyncio.timeout_at(at):
                await self._woken.wait()
        except TimeoutError:
            pass
        finally:
            self._timer_at = float("inf")

    def _perform(self, outputs: list[Output]) -> None:
        """Do what the session says: first send, then tell, because whoever is told may send at once, and comes later."""
        frames = [output.frame for output in outputs if isinstance(output, out.Send)]
        if frames:
            self._outgoing.extend(frames)
            self._outgoing_ready.set()
        for output in outputs:
            match output:
                case out.Acked(key, _, first, last, duplicate):
                    self._settle(key, Appended(first, last, duplicate))
                case out.Done(key, view, created):
                    self._settle(key, (view, created))
                case out.Failed(key, _, error):
                    self._settle(key, error)
                case out.MessagesReceived(stream) | out.SubscriptionStands(stream) | out.Trimmed(stream):
                    self._watch(stream, output)
                case out.EpochChanged(stream) | out.SubscriptionFailed(stream):
                    self._watch(stream, output)
                case out.StateChanged(view) | out.Ended(view):
                    self._watch(view.stream, output)
                case _:
                    self._perform_connection(output)
        at = self.session.next_at()
        if self._connect_wanted or (at is not None and at < self._timer_at):
            self._woken.set()

    def _perform_connection(self, output: Output) -> None:
        match output:
            case out.Connect():
                self._connect_wanted = True
                if self.status is not ConnectionStatus.RECONNECTING:
                    self._tell(StatusEvent(ConnectionStatus.CONNECTING))
            case out.CloseNow():
                self._close = output
                self._lost.set()
            case out.Wait(seconds):
                self._tell(StatusEvent(ConnectionStatus.RECONNECTING, self._last_error, seconds))
            case out.Greeted():
                self._last_error = None
                self._tell(StatusEvent(ConnectionStatus.LIVE))
            case out.Complained(error):
                self._last_error = error
            case out.Renew():
                self._renewal_wanted.set()
            case out.Refused(error):
                self._refused(error)
            case _:
                return  # what is sent already, and what was dropped or asked for again, which concerns the session alone

    def _may_try_again(self, error: UnbrokenError) -> bool:
        """Whether a refused token is worth another connection: once, where there may be a newer one, and not in a row."""
        now = self._now()
        fresh = now - self._second_chance_at >= self._connector.limits.backoff_reset_seconds
        if not (isinstance(error, UnauthorizedError) and self._connector.renewable and fresh):
            return False
        self._second_chance_at = now
        return True

    def _refused(self, error: UnbrokenError) -> None:
        if self._may_try_again(error):
            self._perform(self.session.start())
            return
        self.refusal = error
        self._tell(StatusEvent(ConnectionStatus.REFUSED, error))
        for key in list(self._outcomes):
            self.session.forget(key)
            self._settle(key, error)
        for stream in list(self._watchers):
            self._end_watcher(stream, error)

    def _watch(self, stream: str, output: Output) -> None:
        watcher = self._watchers.get(stream)
        if watcher is None:
            return
        if isinstance(output, out.Ended | out.SubscriptionFailed):
            del self._watchers[stream]
        watcher(output)

    def _end_watcher(self, stream: str, error: UnbrokenError) -> None:
        self.session.unfollow(stream)
        self._watch(stream, out.SubscriptionFailed(stream, error))

    def _settle(self, key: int, outcome: Outcome | UnbrokenError) -> None:
        future = self._outcomes.pop(key, None)
        if future is None or future.done():
            return
        if isinstance(outcome, UnbrokenError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _tell(self, event: StatusEvent) -> None:
        self.status = event.status
        self._on_status(event)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _short(reason: str) -> str:
    """A close reason has at most 123 bytes."""
    return reason.encode()[:120].decode(errors="ignore")
