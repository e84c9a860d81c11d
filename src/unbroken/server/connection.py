"""One WebSocket connection: the server's end of `unbroken.v1`, between a wire and the streams.

A face makes a `Connection` after the handshake, feeds it what arrives and tells it when there is room or the socket is gone.
It moves frames between subscriptions and one socket; it never reads a socket itself and decides nothing about streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING

from unbroken.errors import (
    DrainingError,
    NotFoundError,
    ProtocolError,
    TooLargeError,
    TrimmedError,
    UnauthorizedError,
    UnbrokenError,
)
from unbroken.hub import LiveBatch, Subscription, news
from unbroken.identity import Principal, Verb
from unbroken.messages import StreamInfo
from unbroken.protocol.codec import decode_client, encode_server
from unbroken.protocol.frames import (
    Ack,
    Acks,
    AnswerFrame,
    AppendFrame,
    AuthFrame,
    CancelFrame,
    ClientFrame,
    CreateFrame,
    Goodbye,
    Heartbeat,
    LeaseFrame,
    Pause,
    Result,
    Resume,
    RetryFrame,
    ServerFrame,
    StartFrame,
    StateFrame,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from unbroken.protocol.views import answer_view, stream_view
from unbroken.server.appends import Appends
from unbroken.server.asked import run_result
from unbroken.server.gate import BY_APPENDS, BY_WIRE, Gate
from unbroken.server.inbox import Inbox
from unbroken.server.refusal import CLOSE_SERVICE_RESTART, close_code, error_frame
from unbroken.server.renewal import authorized, greeting, renewed
from unbroken.server.specs import check_written, new_stream
from unbroken.store.base import Appended, Rejected, WriteResult

if TYPE_CHECKING:
    from unbroken.server.services import Services
    from unbroken.server.wire import Wire

__all__ = ["Connection"]


class Connection:
    """One viewer's or producer's socket, with its subscriptions and its appends in flight.

    Frames of the peer take effect in the order in which they came. All methods are called from the event loop.
    """

    __slots__ = (
        "_answered",
        "_appends",
        "_busy",
        "_closed",
        "_dirty",
        "_gate",
        "_inbox",
        "_loop",
        "_pumping",
        "_share",
        "_services",
        "_streams",
        "_subscriptions",
        "_window_bytes",
        "_wire",
        "beat_at",
        "heard",
        "heard_at",
        "id",
        "principal",
    )

    def __init__(self, services: Services, principal: Principal, wire: Wire) -> None:
        self._services = services
        self._wire = wire
        self.principal = principal
        self.id = services.connections.new_id()
        self._loop = asyncio.get_running_loop()
        self.heard = True
        self.heard_at = self.beat_at = self._loop.time()
        self._subscriptions: dict[str, Subscription] = {}
        self._streams: dict[str, StreamInfo] = {}
        self._appends = Appends(services, self._tell_outcomes)
        self._dirty: dict[Subscription, None] = {}
        self._busy = False
        self._pumping = False
        self._window_bytes = services.limits.connection_buffer_bytes_max
        self._gate = Gate(wire)
        self._inbox = Inbox(self, self._gate, services.connections.unfinished, services.limits)
        self._answered = False
        self._closed = False
        services.connections.add(self)
        services.live.add(self)
        self._encode(greeting(services, self.id, principal))
        services.connections.greet(self)
        self._share = services.quotas.share(principal)
        if (exceeded := self._share.begin()) is not None:
            self.fail(exceeded)

    # --- what the face calls ------------------------------------------------------------------------------------------

    def receive(self, *texts: bytes | str) -> None:
        """These text frames have arrived; `read_ends` is to follow in this step of the event loop.

        A frame that is not valid closes the connection.
        """
        self.heard = True
        limits = self._services.limits
        for data in texts:
            if self._closed:
                break
            try:
                frame = decode_client(data, limits)
            except (ProtocolError, TooLargeError) as error:
                self.fail(error)
                break
            if isinstance(frame, Heartbeat) and not self._answered:
                self._answered = True
            elif self._busy or not self._at_once(frame):
                self._inbox.put(frame, len(data))
                if not self._busy:
                    self._busy = True
                    self._spawn(self._work())

    def read_ends(self) -> None:
        """What was received since the last time came in one read: its appends go to the log together."""
        self._appends.submit()

    def writable(self) -> None:
        """There is room on the wire again."""
        self._gate.release(BY_WIRE)
        if self._dirty and not self._pumping:
            self._pump_soon()

    def lost(self) -> None:
        """The socket is gone: everything that was for it is released. Appends in flight go on."""
        self._closed = True
        for subscription in self._subscriptions.values():
            self._services.hub.unsubscribe(subscription)
        self._subscriptions.clear()
        self._inbox.clear()
        self._dirty.clear()
        self._services.connections.remove(self)
        self._services.live.remove(self)
        self._share.close()

    def crowded(self) -> None:
        """Something was sent to the peer that it had asked for: when it does not take it, it may ask no more."""
        if self._wire.full:
            self._gate.hold(BY_WIRE)

    @property
    def held(self) -> bool:
        """Whether nothing more is to be received for now: the face keeps what it has read, as it came."""
        return self._gate.reasons != 0

    @property
    def reading(self) -> bool:
        """Whether the peer's silence means something: not while we do not listen for reasons of our own."""
        return not self._gate.ours

    # --- what the manager calls ---------------------------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Send one encoded frame; one that cannot be delivered any more is dropped."""
        if not self._closed:
            self._wire.send(payload)
            self.crowded()

    def beat(self, payload: bytes) -> None:
        """Send a heartbeat, unless so much waits already that the peer will notice us anyway when it reads.

        One from the peer is free after each of them.
        """
        self._answered = False
        if not self._closed and not self._wire.full:
            self._wire.send(payload)

    def close(self, code: int, reason: str) -> None:
        """Say why and close; what was sent before goes out first."""
        if not self._closed:
            self._tell_outcomes()
            self._closed = True
            self._wire.close(code, reason)

    def dismiss(self, retry_after_seconds: float) -> None:
        """Send the peer away, to come back later."""
        self._encode(Goodbye(reason="drain", retry_after_seconds=retry_after_seconds))
        self.close(CLOSE_SERVICE_RESTART, "restarting")

    def abort(self, code: int, reason: str) -> None:
        """Close, and release everything at once without waiting for a peer that may never answer."""
        self.close(code, reason)
        self._wire.abort()
        self.lost()

    def fail(self, error: UnbrokenError) -> None:
        """Tell the peer what is wrong with the connection as a whole, and close it."""
        self._services.refused(error, "websocket", by=self.principal)
        self._encode(error_frame(error))
        self.close(close_code(error), error.code)

    def expel(self, error: UnauthorizedError) -> None:
        """The credential has ended: nothing more is sent or taken."""
        self.fail(error)

    # --- what the hub calls -------------------------------------------------------------------------------------------

    def offer(self, subscription: Subscription, batch: LiveBatch) -> bool:
        """Take a live batch when there is room."""
        wire = self._wire
        if wire.full or subscription in self._dirty:
            return False
        wire.send_batch(batch)
        return True

    def wake(self, subscription: Subscription) -> None:
        """Remember that a subscription has something to pull."""
        if not subscription.paused and not self._closed:
            self._dirty[subscription] = None
            if not self._pumping and not self._wire.full:
                self._pump_soon()

    # --- frames -------------------------------------------------------------------------------------------------------

    def _at_once(self, frame: ClientFrame) -> bool:
        """Do what needs no waiting; False when it has to wait its turn in `_work`."""
        if isinstance(frame, AppendFrame):
            stream = self._streams.get(frame.stream)
            if stream is None:
                return False
            try:
                self._append(frame, stream)
            except UnbrokenError:
                return False  # in `_handle`: who is refused pays, and waits, as for any other frame
            return True
        if isinstance(frame, (Unsubscribe, Pause, Resume, Heartbeat)) and self._share.at_once():
            self._steer(frame)
            self._gate.count()
            return True
        return False

    def _steer(self, frame: ClientFrame) -> None:
        """Do what a frame without an answer asks for."""
        if isinstance(frame, Unsubscribe):
            self._unsubscribe(frame.stream)
        elif isinstance(frame, (Pause, Resume)) and (subscription := self._subscriptions.get(frame.stream)) is not None:
            subscription.paused = isinstance(frame, Pause)
            self._dirty.pop(subscription, None)
            self.wake(subscription)

    async def _work(self) -> None:
        """Handle the frames that wait, one after the other."""
        inbox = self._inbox
        try:
            while len(inbox) and not self._closed:
                frame = inbox.next()
                try:
                    if self._at_once(frame):
                        self._appends.submit()
                    else:
                        await self._handle(frame)
                except UnbrokenError as error:
                    self._refuse(error, getattr(frame, "id", None), getattr(frame, "stream", None))
                finally:
                    inbox.done()
        finally:
            self._busy = False

    async def _handle(self, frame: ClientFrame) -> None:
        services = self._services
        stream = await self._turn(frame)
        if self._closed:
            return
        match frame:
            case Unsubscribe() | Pause() | Resume() | Heartbeat():
                self._steer(frame)
            case Subscribe():
                await self._subscribe(frame)
            case AppendFrame():
                assert stream is not None, "an append's turn comes with its stream"
                self._append(frame, stream)
                self._appends.submit()
            case CreateFrame():
                await self._create(frame)
            case CancelFrame():
                info = await services.states.cancel(await self._stream(frame.stream, Verb.CANCEL), self.principal)
                self._encode(Result(id=frame.id, stream=answer_view(info, self.principal)))
            case LeaseFrame():
                stream = check_written(await self._stream(frame.stream, Verb.APPEND))
                info = await services.states.lease(stream, frame.producer.id, frame.producer.epoch, frame.seconds)
                self._encode(Result(id=frame.id, stream=answer_view(info, self.principal)))
            case AuthFrame():
                await self._renew(frame)
            case StartFrame() | RetryFrame() | AnswerFrame():
                self._encode(await run_result(services.desk, services.streams, self.principal, frame))
            case _:
                raise ProtocolError("this frame is not for a server")

    async def _turn(self, frame: ClientFrame) -> StreamInfo | None:
        """Wait until it is the frame's turn, for an append also for room in its stream; no longer than we are open."""
        async with self._inbox.patience():
            await self._share.turn()
            if isinstance(frame, AppendFrame):
                stream = self._remember(await self._stream(frame.stream, Verb.APPEND))
                await self._services.streams.room(stream, self.principal)
                return stream
        return None

    async def _stream(self, name: str, may: Verb) -> StreamInfo:
        return await self._services.streams.get(self.principal, name, may=may)

    def _remember(self, stream: StreamInfo) -> StreamInfo:
        """Keep a stream that may be appended to, so that the next append need not look it up.

        Should another stream take its name, the store finds that one, in the order of the appends; not for a principal that
        may append to this very one only.
        """
        if len(self._streams) >= self._services.limits.subscriptions_max:
            self._streams.pop(next(iter(self._streams)))
        self._streams[stream.name] = stream
        return stream

    async def _create(self, frame: CreateFrame) -> None:
        created = await self._services.streams.create(self.principal, frame.stream, new_stream(frame))
        await self._services.quotas.look(self.principal)  # a stream that is remembered takes appends without waiting
        self._remember(created.stream)
        self._encode(Result(id=frame.id, stream=answer_view(created.stream, self.principal), created=created.created))

    async def _renew(self, frame: AuthFrame) -> None:
        """Go on with a newer credential of the same principal; what that does not cover ends here."""
        services = self._services
        self.principal = principal = await renewed(services, self.principal, frame.token)
        services.live.remove(self)
        if self._closed:
            return
        services.live.add(self)
        self._streams.clear()
        for name, subscription in list(self._subscriptions.items()):
            if not principal.may(Verb.READ, name, subscription.live.info.epoch):
                self._drop(subscription, NotFoundError(f"no stream {name!r}", stream=name))
        self._encode(authorized(services, frame.id, principal))

    # --- appends ------------------------------------------------------------------------------------------------------

    def _append(self, frame: AppendFrame, stream: StreamInfo) -> None:
        principal, appends = self.principal, self._appends
        by_name = principal.grants is None or principal.may(Verb.APPEND, stream.name)
        appends.add(frame, stream, by=principal, by_name=by_name)
        if appends.flying >= self._services.limits.connection_pending_appends_max:
            self._gate.hold(BY_APPENDS)

    def _tell_outcomes(self) -> None:
        outcomes = self._appends.take_decided()
        if self._appends.flying < self._services.limits.connection_pending_appends_max // 2:
            self._gate.release(BY_APPENDS)
        if self._closed:
            return
        acks: list[Ack] = []
        for group, outcome in outcomes:
            if isinstance(outcome, Appended):
                acks += group.acks(outcome)
                if outcome.moved_to is not None:
                    self._streams.pop(group.stream.name, None)
            else:
                for number, _ in group.places:
                    self._tell_failure(number, group.stream.name, outcome)
        if acks:
            self._encode(Acks(acks=acks))

    def _tell_failure(self, number: int, stream: str, outcome: WriteResult | UnbrokenError) -> None:
        error = outcome.error if isinstance(outcome, Rejected) else outcome
        assert isinstance(error, UnbrokenError)
        self._streams.pop(stream, None)
        self._refuse(error, number, stream)

    # --- subscriptions ------------------------------------------------------------------------------------------------

    async def _subscribe(self, frame: Subscribe) -> None:
        services = self._services
        if len(self._subscriptions) >= services.limits.subscriptions_max and frame.stream not in self._subscriptions:
            raise TooLargeError("too many subscriptions on this connection", limit="subscriptions_max")
        stream = await self._stream(frame.stream, Verb.READ)
        cursor = services.streams.position(stream, frame.after)
        try:
            known = (await services.store.hash_at(stream.id, cursor)).hex()
        except TrimmedError:
            known = ""
        self._unsubscribe(frame.stream)
        self._share.resize(len(self._subscriptions) + 1)
        subscription = await services.hub.subscribe(stream, cursor, self, paused=True)
        if self._closed:
            services.hub.unsubscribe(subscription)
            return
        self._subscriptions[frame.stream] = subscription
        info = subscription.live.info
        if not info.state.terminal:
            news(subscription)
        view = stream_view(info)
        place = f"{stream.epoch}:{cursor}"
        self._encode(Subscribed(id=frame.id, cursor=place, hash=known, stream=view, salts=info.salts))
        subscription.paused = False
        self.wake(subscription)

    def _unsubscribe(self, name: str) -> None:
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            self._dirty.pop(subscription, None)
            self._services.hub.unsubscribe(subscription)
            self._share.resize(len(self._subscriptions))

    def _pump_soon(self) -> None:
        self._pumping = True
        self._spawn(self._pump())

    async def _pump(self) -> None:
        """Serve the subscriptions that are behind, in turn, while there is room on the wire."""
        dirty, hub, wire, limits = self._dirty, self._services.hub, self._wire, self._services.limits
        try:
            while dirty and not wire.full and not self._closed:
                subscription = next(iter(dirty))
                del dirty[subscription]
                if subscription.paused:
                    continue
                wire.bound(min(limits.connection_buffer_bytes_max, hub.share_bytes))
                try:
                    batches = await hub.pull(subscription, bytes_max=self._window_bytes)
                except UnbrokenError as error:
                    self._drop(subscription, error)
                    continue
                if not wire.waiting_bytes:  # a peer that has taken all gets larger pieces next
                    self._window_bytes = max(self._window_bytes, min(2 * self._window_bytes, limits.read_bytes_max))
                if self._subscriptions.get(subscription.live.name) is subscription:
                    self._serve(subscription, batches)
        finally:
            self._pumping = False

    def _serve(self, subscription: Subscription, batches: Sequence[LiveBatch]) -> None:
        wire = self._wire
        for batch in batches:
            wire.send_batch(batch)
        if subscription.behind:
            self._dirty[subscription] = None
        info = news(subscription)
        if info is not None:
            self._encode(StateFrame(stream=stream_view(info)))
            if info.state.terminal:
                self._unsubscribe(info.name)

    def _drop(self, subscription: Subscription, error: UnbrokenError) -> None:
        name = subscription.live.name
        if self._subscriptions.get(name) is subscription:
            self._unsubscribe(name)
            self._refuse(error, None, name)

    # --- the way out --------------------------------------------------------------------------------------------------

    def _encode(self, frame: ServerFrame) -> None:
        self.send(encode_server(frame))

    def _refuse(self, error: UnbrokenError, number: int | None, stream: str | None) -> None:
        self._services.refused(error, "websocket", by=self.principal)
        self._encode(error_frame(error, number, stream))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        try:
            self._services.connections.spawn(work, self)
        except DrainingError as error:
            self._busy = self._pumping = False
            self.fail(error)
