"""The frames of `unbroken.v1` as frozen types, one per frame of PROTOCOL.md.

`codec` turns them into bytes and back; both ends of a connection, and the fault kit, speak in them. A frame's tag is its
`type` field.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from unbroken.messages import Message, NewMessage

__all__ = [
    "PROTOCOL",
    "Ack",
    "Acks",
    "AnswerFrame",
    "AppendFrame",
    "AuthFrame",
    "Authorized",
    "CancelFrame",
    "ClientFrame",
    "CloseSpec",
    "CreateFrame",
    "ErrorFrame",
    "Goodbye",
    "Heartbeat",
    "Hello",
    "LeaseFrame",
    "MessagesFrame",
    "Notice",
    "Pause",
    "ProducerSpec",
    "Result",
    "Resume",
    "RetryFrame",
    "ServerFrame",
    "StartFrame",
    "StateFrame",
    "StreamView",
    "Subscribe",
    "Subscribed",
    "Unsubscribe",
]

PROTOCOL = "unbroken.v1"


class _Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """Common options of all frames."""


class ProducerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Who appends: see `store.base.Producer`."""

    id: str
    epoch: int = 0
    seq: int = 0


class CloseSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """How to end a stream: a terminal state and a JSON object saying why."""

    state: str = "completed"
    reason: msgspec.Raw | UnsetType = UNSET


# --- client to server -------------------------------------------------------------------------------------------------


class Subscribe(_Frame, frozen=True, kw_only=True, tag="subscribe"):
    """`after`: `start`, `now`, `last:N`, or a cursor `epoch:seq`."""

    id: int
    stream: str
    after: str = "start"


class Unsubscribe(_Frame, frozen=True, kw_only=True, tag="unsubscribe"):
    stream: str


class Pause(_Frame, frozen=True, kw_only=True, tag="pause"):
    stream: str


class Resume(_Frame, frozen=True, kw_only=True, tag="resume"):
    stream: str


class CreateFrame(_Frame, frozen=True, kw_only=True, tag="create"):
    id: int
    stream: str
    kind: str = "stream"
    content_type: str = "application/json"
    session: str | None = None
    metadata: msgspec.Raw | UnsetType = UNSET
    ttl_seconds: int | None = None
    lease: ProducerSpec | None = None
    lease_seconds: float | None = None


class AppendFrame(_Frame, frozen=True, kw_only=True, tag="append"):
    id: int
    stream: str
    messages: list[NewMessage] = []
    producer: ProducerSpec | None = None
    expected_head: int | None = None
    close: CloseSpec | None = None


class CancelFrame(_Frame, frozen=True, kw_only=True, tag="cancel"):
    id: int
    stream: str


class LeaseFrame(_Frame, frozen=True, kw_only=True, tag="lease"):
    """Take or renew the lease; `seconds` 0 gives it back."""

    id: int
    stream: str
    producer: ProducerSpec
    seconds: float


class StartFrame(_Frame, frozen=True, kw_only=True, tag="start"):
    """Start a run: `run` is the body of `POST /v1/runs`."""

    id: int
    run: msgspec.Raw


class RetryFrame(_Frame, frozen=True, kw_only=True, tag="retry"):
    """Try a run that has ended once more."""

    id: int
    stream: str


class AnswerFrame(_Frame, frozen=True, kw_only=True, tag="answer"):
    """Answer the question `question` of a run with any JSON value."""

    id: int
    stream: str
    question: str
    response: msgspec.Raw


class AuthFrame(_Frame, frozen=True, kw_only=True, tag="auth"):
    """Go on with a newer credential of the same principal, before the present one ends."""

    id: int
    token: str

    def __repr__(self) -> str:
        return f"AuthFrame(id={self.id})"


class Heartbeat(_Frame, frozen=True, kw_only=True, tag="heartbeat"):
    """Either way; the client answers each of the server's with one of its own."""


ClientFrame = (
    Subscribe
    | Unsubscribe
    | Pause
    | Resume
    | CreateFrame
    | AppendFrame
    | CancelFrame
    | LeaseFrame
    | StartFrame
    | RetryFrame
    | AnswerFrame
    | AuthFrame
    | Heartbeat
)

# --- server to client -------------------------------------------------------------------------------------------------


class Hello(_Frame, frozen=True, kw_only=True, tag="hello"):
    protocol: str
    server: str
    connection: str
    heartbeat_seconds: float
    silence_seconds: float
    frame_bytes_max: int
    message_bytes_max: int
    append_messages_max: int
    expires_seconds: float | None = None
    """For how long the credential is good; None: as long as nobody takes it away."""


class StreamView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A stream as clients see it, on every face."""

    stream: str
    epoch: int
    state: str
    first: int
    head: int
    cursor: str
    kind: str
    content_type: str
    created: int
    updated: int
    bytes: int
    session: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    reason: msgspec.Raw = msgspec.Raw(b"{}")
    hash: str = ""
    ended: int | None = None
    expires: int | None = None
    ttl_seconds: int | None = None
    producer: str | None = None
    cancel_requested: bool = False
    cancel_requested_by: str | None = None
    run: msgspec.Raw | UnsetType = UNSET
    erased: msgspec.Raw | UnsetType = UNSET


class Subscribed(_Frame, frozen=True, kw_only=True, tag="subscribed"):
    """The subscription stands; messages behind `cursor` follow. `hash` is the chain at `cursor` (hex).

    `salts` are what a reader needs to recompute it (see `protocol.salts`).
    """

    id: int
    cursor: str
    hash: str
    stream: StreamView
    salts: bytes = b""


class MessagesFrame(_Frame, frozen=True, kw_only=True, tag="messages"):
    """Messages `first`, `first` + 1 … in order; `hash` is the chain at the last of them (hex)."""

    stream: str
    epoch: int
    first: int
    hash: str
    messages: list[Message]


class StateFrame(_Frame, frozen=True, kw_only=True, tag="state"):
    """The stream's state has changed. A terminal one comes after message `head`, and ends the subscription."""

    stream: StreamView


class Ack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    id: int
    first: int
    last: int
    duplicate: bool = False


class Acks(_Frame, frozen=True, kw_only=True, tag="acks"):
    """These appends are durable."""

    acks: list[Ack]


class Result(_Frame, frozen=True, kw_only=True, tag="result"):
    """A create, cancel or lease took effect."""

    id: int
    stream: StreamView
    created: bool = False


class Authorized(_Frame, frozen=True, kw_only=True, tag="authorized"):
    """An `auth` took effect; the new credential is good for `expires_seconds` (None: until somebody takes it away)."""

    id: int
    expires_seconds: float | None = None


class ErrorFrame(_Frame, frozen=True, kw_only=True, tag="error"):
    """A request (`id`) or a subscription (`stream`) failed; without both, the connection."""

    code: str
    message: str
    retryable: bool = False
    id: int | None = None
    stream: str | None = None
    detail: dict[str, str | int | bool | None] = {}
    cure: str = ""


class Notice(_Frame, frozen=True, kw_only=True, tag="notice"):
    """Something that concerns the whole server: `degraded` (the store is away), `recovered`."""

    code: str
    message: str = ""


class Goodbye(_Frame, frozen=True, kw_only=True, tag="goodbye"):
    """The server is about to close; come back after `retry_after_seconds`."""

    reason: str
    retry_after_seconds: float = 0.0


ServerFrame = (
    Hello
    | Authorized
    | Subscribed
    | MessagesFrame
    | StateFrame
    | Acks
    | Result
    | ErrorFrame
    | Notice
    | Goodbye
    | Heartbeat
)
