"""What `ClientSession` asks its shell to do and tells its application, as frozen values.

The session's callers match on them; tests/vectors/README.md names the same outputs for every language. Nothing here
acts.
"""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.errors import UnbrokenError
from unbroken.messages import Cursor, Message
from unbroken.protocol.frames import ClientFrame, Hello, StreamView

__all__ = [
    "Acked",
    "CloseNow",
    "Complained",
    "Connect",
    "Done",
    "Dropped",
    "Ended",
    "EpochChanged",
    "Failed",
    "Gap",
    "Greeted",
    "MessagesReceived",
    "Noticed",
    "Output",
    "Refused",
    "Renew",
    "Send",
    "StateChanged",
    "SubscriptionFailed",
    "SubscriptionStands",
    "Trimmed",
    "Wait",
]


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection now; say `opened` or `connect_failed` afterwards."""


@dataclass(frozen=True, slots=True)
class Send:
    frame: ClientFrame


@dataclass(frozen=True, slots=True)
class CloseNow:
    """Close the present connection and treat it as gone: do not say `closed` afterwards."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """There is no connection; the next is opened by a `tick` so many seconds from now."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Greeted:
    """The server's first frame: the connection works."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Renew:
    """The credential ends soon: hand a newer one to `renew`, if there is one."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The session does not come back by itself; `start` tries again."""

    error: UnbrokenError
    close_code: int | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionStands:
    stream: str
    cursor: Cursor
    view: StreamView


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """Messages `first`, `first` + 1 …: each is told once, in order, over all connections. `hash` is the chain at the last."""

    stream: str
    epoch: int
    first: int
    messages: tuple[Message, ...]
    encoded_bytes: int
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Messages not handed on: `overlap`, `gap`, `epoch`, `unknown` (no cursor yet) or `paused`."""

    stream: str
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages `expected` to `first` - 1 are missing and asked for again."""

    stream: str
    expected: int
    first: int


@dataclass(frozen=True, slots=True)
class EpochChanged:
    """What was held of the stream is void; it is read from its start. `epoch` is 0 where the server did not say it."""

    stream: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Trimmed:
    """`missing` messages before `first` can no longer be had; reading goes on at `first`."""

    stream: str
    missing: int
    first: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    view: StreamView


@dataclass(frozen=True, slots=True)
class Ended:
    """The terminal state, after message `head`; the subscription is over."""

    view: StreamView


@dataclass(frozen=True, slots=True)
class SubscriptionFailed:
    stream: str
    error: UnbrokenError


@dataclass(frozen=True, slots=True)
class Acked:
    """An append is durable. `first` and `last` are 0 when the server no longer knows the places of a duplicate."""

    key: int
    id: int
    first: int
    last: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Done:
    """A create, cancel or lease took effect."""

    key: int
    view: StreamView
    created: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A request is over for good and had no effect, or an unknown one where its error says so."""

    key: int
    id: int
    error: UnbrokenError


@dataclass(frozen=True, slots=True)
class Noticed:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Complained:
    """An error that concerns the connection as a whole, the server's or this end's about the server."""

    error: UnbrokenError


Output = (
    Connect
    | Send
    | CloseNow
    | Wait
    | Greeted
    | Refused
    | Renew
    | SubscriptionStands
    | MessagesReceived
    | Dropped
    | Gap
    | EpochChanged
    | Trimmed
    | StateChanged
    | Ended
    | SubscriptionFailed
    | Acked
    | Done
    | Failed
    | Noticed
    | Complained
)
