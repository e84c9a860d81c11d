"""`ClientSession`: the client's end of `unbroken.v1` as a machine without I/O, by the rules of PROTOCOL.md 4.4.

It owns the cursors, the unanswered requests, the heartbeat and the decision when to connect again; a shell feeds it
what happens, with the time, and does what it says. It never opens a socket, reads a clock or waits, and it runs the
shared transcripts of tests/vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from random import Random

from unbroken.errors import (
    DrainingError,
    ForbiddenOriginError,
    ProtocolError,
    TooLargeError,
    UnauthorizedError,
    UnbrokenError,
    VersionError,
    error_from_code,
)
from unbroken.limits import Limits
from unbroken.protocol import client_outputs as out
from unbroken.protocol import negotiation
from unbroken.protocol.backoff import Backoff
from unbroken.protocol.client_chain import Verify
from unbroken.protocol.client_outputs import Output
from unbroken.protocol.client_renewal import Renewal
from unbroken.protocol.client_requests import RENEWALS, Request, Requests, retry_after
from unbroken.protocol.client_subscription import Subscription
from unbroken.protocol.codec import ReceivedFrame, ReceivedMessages, decode_server
from unbroken.protocol.frames import (
    Acks,
    AuthFrame,
    Authorized,
    ClientFrame,
    ErrorFrame,
    Goodbye,
    Heartbeat,
    Hello,
    Notice,
    Pause,
    Result,
    Resume,
    StateFrame,
    Subscribed,
    Unsubscribe,
)

__all__ = ["REFUSALS", "ClientSession", "comes_back"]

REFUSALS: dict[int, type[UnbrokenError]] = {
    4400: ProtocolError,
    4401: UnauthorizedError,
    4403: ForbiddenOriginError,
    4426: VersionError,
}
"""Close codes after which a client does not come back by itself, and the error that each means."""


def comes_back(code: int) -> bool:
    """Whether a client connects again by itself after the other side, or the network, closed with `code`."""
    return code not in REFUSALS


class _Phase(Enum):
    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    REFUSED = "refused"
    STOPPED = "stopped"


class ClientSession:
    """One client over any number of connections, one at a time.

    Every method takes what happened and returns what follows, in order; `next_at` says when to call `tick` at the
    latest. Promises: each message of a followed stream is told once and in order; a request is sent until it is
    answered; after a `Refused` nothing happens until `start`.
    """

    def __init__(self, limits: Limits, random: Random) -> None:
        self._limits = limits
        self._random = random
        self._phase = _Phase.IDLE
        self._backoff = Backoff(limits, random)
        self._subscriptions: dict[str, Subscription] = {}
        self._retries: dict[str, tuple[float, Backoff]] = {}
        self._leases: dict[str, float] = {}
        self._last_id = 0
        self._requests = Requests(limits, random, self._next_id)
        self._connect_at = 0.0
        self._heard_at = 0.0
        self._silence_seconds = limits.silence_seconds_max
        self._goodbye_seconds = 0.0
        self._renewal = Renewal()
        self.hello: Hello | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection on which frames can be sent."""
        return self._phase is _Phase.OPEN

    @property
    def unanswered(self) -> int:
        """How many requests are kept."""
        return len(self._requests)

    def cursor(self, stream: str) -> str | None:
        """The cursor held for a followed stream."""
        subscription = self._subscriptions.get(stream)
        return None if subscription is None or subscription.cursor is None else str(subscription.cursor)

    def next_at(self) -> float | None:
        """The time at which something will be due; None when only an event can change anything."""
        match self._phase:
            case _Phase.WAITING:
                return self._connect_at
            case _Phase.OPEN:
                times = [self._heard_at + self._silence_seconds, *(at for at, _ in self._retries.values())]
                others = (self._requests.next_at(), self._renewal.at)
                return min([*times, *(at for at in others if at is not None)])
            case _:
                return None

    # --- what the application wants ----------------------------------------------------------------------------------

    def start(self) -> list[Output]:
        """Connect; also the way back after `Refused`."""
        if self._phase in {_Phase.IDLE, _Phase.REFUSED}:
            return self._connect()
        return []

    def stop(self) -> list[Output]:
        """Leave for good; what is unanswered fails with `draining`."""
        was_open = self.connected or self._phase is _Phase.CONNECTING
        self._phase = _Phase.STOPPED
        failed = self._requests.fail_all(DrainingError("the client was closed before the answer"))
        return [*([out.CloseNow(1000, "leaving")] if was_open else []), *failed]

    def wake(self) -> list[Output]:
        """The platform says that it is online or visible again: connect at once instead of waiting on."""
        return self._connect() if self._phase is _Phase.WAITING else []

    def follow(self, stream: str, after: str = "start", *, verify: Verify = False) -> list[Output]:
        """Subscribe; a second time for the same stream replaces the first."""
        subscription = Subscription(stream, after, verify=verify, limits=self._limits, next_id=self._next_id)
        self._subscriptions.pop(stream, None)
        self._subscriptions[stream] = subscription
        self._retries.pop(stream, None)
        return [subscription.subscribe()] if self.connected else []

    def unfollow(self, stream: str) -> list[Output]:
        """Forget the stream; frames of it that still arrive are ignored."""
        self._retries.pop(stream, None)
        if self._subscriptions.pop(stream, None) is None or not self.connected:
            return []
        return [out.Send(Unsubscribe(stream=stream))]

    def pause(self, stream: str) -> list[Output]:
        """Take no more for now; what is on the way is still told, up to `limits.client_follow_messages_max`."""
        subscription = self._subscriptions.get(stream)
        if subscription is None or subscription.paused:
            return []
        subscription.pause()
        return [out.Send(Pause(stream=stream))] if self.connected else []

    def resume(self, stream: str) -> list[Output]:
        """Go on from the cursor."""
        subscription = self._subscriptions.get(stream)
        if subscription is None or not subscription.paused:
            return []
        subscription.paused = False
        if not self.connected:
            return []
        if subscription.behind or subscription.id == 0:
            return [subscription.subscribe()]
        return [out.Send(Resume(stream=stream))]

    def hold(self, holder: str, lease_seconds: float) -> None:
        """`holder` keeps a lease: from now on it waits at most a third of that before it connects again."""
        self._leases[holder] = lease_seconds

    def let_go(self, holder: str) -> None:
        """`holder` keeps no lease any more."""
        self._leases.pop(holder, None)

    def request(self, frame: Request) -> tuple[int, list[Output]]:
        """Keep and send a request until it is answered; its outcome carries the key."""
        return self._requests.add(frame, connected=self.connected)

    def forget(self, key: int) -> None:
        """Whoever made the request is gone: send it no more."""
        self._requests.forget(key)

    def reject(self, frame: ClientFrame, error: UnbrokenError, now: float) -> list[Output]:
        """A frame given out with `Send` cannot be sent: what it asked for is over."""
        return self._error(ErrorFrame(code=error.code, message=error.message, id=getattr(frame, "id", -1)), now)

    def renew(self, token: str) -> list[Output]:
        """A newer credential, as `Renew` has asked for; where there is no connection, the next one comes with it anyway."""
        if not self.connected:
            return []
        self._renewal.number = self._next_id()
        return [out.Send(AuthFrame(id=self._renewal.number, token=token))]

    # --- what happens to the connection ------------------------------------------------------------------------------

    def opened(self, now: float) -> list[Output]:
        """The handshake is done: subscriptions first, in the order in which they were followed, then requests."""
        assert self._phase is _Phase.CONNECTING, "opened without Connect"
        self._phase = _Phase.OPEN
        self._heard_at = now
        self._silence_seconds = self._limits.silence_seconds_max
        self._retries.clear()
        self._renewal.forget()
        outputs: list[Output] = []
        for subscription in self._subscriptions.values():
            subscription.id = 0
            if not subscription.paused:
                outputs.append(subscription.subscribe())
        return [*outputs, *self._requests.send_all()]

    def connect_failed(
        self, now: float, error: UnbrokenError | None = None, *, retry_after: float = 0.0
    ) -> list[Output]:
        """There was no handshake. `error` is a refusal that does not come back by itself, None any other failure."""
        if self._phase is not _Phase.CONNECTING:
            return []
        if error is not None:
            return self._refuse(error)
        return self._wait(now, retry_after)

    def closed(self, now: float, code: int) -> list[Output]:
        """The present connection is gone, not by this end's wish."""
        if self._phase is not _Phase.OPEN:
            return []
        refusal = REFUSALS.get(code)
        if refusal is not None:
            return self._refuse(refusal(f"the server closed the connection with code {code}"), code)
        return self._wait(now, 0.0)

    def receive(self, data: bytes | str, now: float) -> list[Output]:
        """A WebSocket text has arrived.

        A frame that breaks the protocol costs the connection, never the session; messages that cannot be read because
        they are nested too deep would come again, so they cost their subscription.
        """
        if self._phase is not _Phase.OPEN:
            return []
        self._heard_at = now
        try:
            frame = decode_server(data, self._limits)
            return [] if frame is None else self._handle(frame, now)
        except TooLargeError as error:
            stream = error.detail.get("stream")
            return self._unreadable(stream, error) if isinstance(stream, str) else self._abandon(now, 1009, error)
        except UnbrokenError as error:
            return self._abandon(now, 4400, error)

    def tick(self, now: float) -> list[Output]:
        """Time has passed: connect, give up a silent connection, retry what rested."""
        if self._phase is _Phase.WAITING and now >= self._connect_at:
            return self._connect()
        if self._phase is not _Phase.OPEN:
            return []
        if now >= self._heard_at + self._silence_seconds:  # as in next_at: the same sum, not its difference
            return [out.CloseNow(4408, "the server was silent for too long"), *self._wait(now, 0.0)]
        outputs = self._requests.due(now)
        for stream in [stream for stream, (at, _) in self._retries.items() if at <= now]:
            _, backoff = self._retries[stream]
            self._retries[stream] = (float("inf"), backoff)
            outputs.append(self._subscriptions[stream].subscribe())
        return [*outputs, out.Renew()] if self._renewal.due(now) else outputs

    # --- frames ------------------------------------------------------------------------------------------------------

    def _handle(self, frame: ReceivedFrame, now: float) -> list[Output]:  # noqa: C901 - one case for each type
        match frame:
            case ReceivedMessages():
                return self._on(frame.stream, lambda subscription: subscription.messages(frame))
            case Acks():
                return [output for ack in frame.acks for output in self._requests.acked(ack)]
            case StateFrame():
                return self._on(frame.stream.stream, lambda subscription: subscription.state(frame))
            case Subscribed():
                self._retries.pop(frame.stream.stream, None)
                return self._on(frame.stream.stream, lambda subscription: subscription.subscribed(frame))
            case Result():
                return self._requests.done(frame)
            case ErrorFrame():
                return self._error(frame, now)
            case Heartbeat():
                return [out.Send(Heartbeat())]
            case Authorized():
                if frame.id == self._renewal.number:
                    self._renewal.learn(now, frame.expires_seconds)
                return []
            case Hello():
                return self._hello(frame, now)
            case Notice():
                return [out.Noticed(frame.code, frame.message)]
            case Goodbye():
                self._goodbye_seconds = frame.retry_after_seconds
                return []

    def _hello(self, frame: Hello, now: float) -> list[Output]:
        negotiation.check(frame.protocol)
        self.hello = frame
        self._silence_seconds = frame.silence_seconds
        self._backoff.working(now)
        self._renewal.learn(now, frame.expires_seconds)
        return [out.Greeted(frame)]

    def _on(self, stream: str, act: Callable[[Subscription], list[Output]]) -> list[Output]:
        """What a followed stream's subscription makes of a frame; one that is over is forgotten."""
        subscription = self._subscriptions.get(stream)
        if subscription is None:
            return []
        outputs = act(subscription)
        if subscription.over:
            self._subscriptions.pop(stream, None)
            if any(isinstance(output, out.SubscriptionFailed) for output in outputs):
                outputs.append(out.Send(Unsubscribe(stream=stream)))
        return outputs

    def _unreadable(self, stream: str, error: TooLargeError) -> list[Output]:
        left = self.unfollow(stream)
        return [out.SubscriptionFailed(stream, error), *left] if left else []

    def _error(self, frame: ErrorFrame, now: float) -> list[Output]:
        error = error_from_code(frame.code, frame.message, frame.detail)
        if frame.id is not None and frame.id == self._renewal.number:
            return [out.Complained(error)]
        if frame.id is not None:
            for subscription in self._subscriptions.values():
                if subscription.id == frame.id:
                    return self._subscription_error(subscription, frame, error, now)
            return self._requests.failed(frame.id, error, retryable=frame.retryable, now=now)
        if frame.stream is not None:
            named = self._subscriptions.get(frame.stream)
            return [] if named is None else self._subscription_error(named, frame, error, now)
        return [out.Complained(error)]

    def _subscription_error(
        self, subscription: Subscription, frame: ErrorFrame, error: UnbrokenError, now: float
    ) -> list[Output]:
        match frame.code, frame.detail.get("first"):
            case "epoch_mismatch", _:
                epoch = frame.detail.get("epoch")
                return subscription.epoch_changed(epoch if isinstance(epoch, int) else 0)
            case "trimmed", int(first):
                return subscription.trimmed(first)
        stream = subscription.stream
        _, backoff = self._retries.get(stream) or (0.0, Backoff(self._limits, self._random))
        if frame.retryable and backoff.failures < self._limits.client_retries_max:
            subscription.standing = False
            self._retries[stream] = (now + backoff.failure(now, at_least=retry_after(error)), backoff)
            return []
        self._retries.pop(stream, None)
        del self._subscriptions[stream]
        return [out.SubscriptionFailed(stream, error)]

    # --- connections -------------------------------------------------------------------------------------------------

    def _connect(self) -> list[Output]:
        self._phase = _Phase.CONNECTING
        self.hello = None
        return [out.Connect()]

    def _wait(self, now: float, at_least: float) -> list[Output]:
        at_least, self._goodbye_seconds = max(at_least, self._goodbye_seconds), 0.0
        seconds = self._backoff.failure(
            now, at_least=at_least, at_most=min(self._leases.values(), default=inf) / RENEWALS
        )
        self._phase = _Phase.WAITING
        self._connect_at = now + seconds
        return [out.Wait(seconds)]

    def _refuse(self, error: UnbrokenError, close_code: int | None = None) -> list[Output]:
        self._phase = _Phase.REFUSED
        return [out.Refused(error, close_code)]

    def _abandon(self, now: float, code: int, error: UnbrokenError) -> list[Output]:
        if isinstance(error, VersionError):
            return [out.CloseNow(1000, "no version in common"), *self._refuse(error)]
        return [out.Complained(error), out.CloseNow(code, error.message), *self._wait(now, 0.0)]

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id
