"""What applications hand to the client and get back from it: messages, acknowledgements, pages, status.

Every module of the client uses them. Nothing here talks to a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import msgspec
from msgspec import UNSET

from unbroken.errors import InvalidError, TooLargeError, UnbrokenError
from unbroken.limits import Limits
from unbroken.messages import Cursor, Epoch, Message, NewMessage, Seq, check_depth, too_deep
from unbroken.protocol.frames import StreamView

__all__ = [
    "Appended",
    "ConnectionStatus",
    "Erasure",
    "Json",
    "Payload",
    "Received",
    "SessionPage",
    "SessionView",
    "StatusEvent",
    "StreamPage",
    "StreamRead",
    "Verification",
    "append_bytes_max",
    "as_messages",
    "encoded_bytes",
    "raw_json",
]

Json: TypeAlias = "bool | int | float | str | list[Json] | tuple[Json, ...] | Mapping[str, Json] | None"
Payload: TypeAlias = "NewMessage | str | bytes | Mapping[str, Json]"

_encoder = msgspec.json.Encoder()
FRAME_BYTES = 16 * 1024
"""More than everything around the messages of an append takes: names, producer, reason, each byte escaped."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message of a stream and its place."""

    seq: int
    epoch: int
    message: Message

    @property
    def cursor(self) -> Cursor:
        """The cursor of a viewer that has this message and everything before it."""
        return Cursor(Epoch(self.epoch), Seq(self.seq))

    @property
    def kind(self) -> str:
        return self.message.kind

    @property
    def text(self) -> str | None:
        """The payload, where it is a text."""
        return None if self.message.text is UNSET else self.message.text

    @property
    def data(self) -> bytes | None:
        """The payload, where it is bytes."""
        return None if self.message.data is UNSET else self.message.data

    @property
    def json(self) -> Json:
        """The payload, where it is a JSON value; None otherwise. `TooLargeError` when the stack has no room for it."""
        try:
            return None if self.message.json is UNSET else msgspec.json.decode(self.message.json)
        except RecursionError:
            raise too_deep() from None


@dataclass(frozen=True, slots=True)
class Appended:
    """Messages `first` to `last` are durable.

    `duplicate` says that an earlier sending of the same append had done it; then both places are 0 where the server no
    longer knows them. An append that only closed has `first` = `last` + 1.
    """

    first: int
    last: int
    duplicate: bool = False


class ConnectionStatus(StrEnum):
    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    REFUSED = "refused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """How the connection is now: why it is not live, and in how many seconds the next try begins."""

    status: ConnectionStatus
    error: BaseException | None = None
    retry_seconds: float | None = None


class StreamPage(msgspec.Struct, frozen=True, kw_only=True):
    streams: list[StreamView]
    next: str | None = None


class StreamRead(msgspec.Struct, frozen=True, kw_only=True):
    """A bounded read: messages `first` to `last`, and whether they reach the head."""

    stream: StreamView
    first: int
    last: int
    cursor: str
    hash: str = ""
    messages: list[Message] = []
    up_to_date: bool = False

    def received(self) -> list[Received]:
        """The messages with their places."""
        epoch = self.stream.epoch
        return [Received(seq, epoch, message) for seq, message in enumerate(self.messages, self.first)]


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    session: str
    state: str
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    created: int = 0
    updated: int = 0


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    sessions: list[SessionView]
    next: str | None = None


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased: streams that were not so before, and sessions whose metadata are gone."""

    streams: int
    sessions: int = 0


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What recomputing a stream's hash chain gave: messages `first` to `last` fit.

    Where the chain breaks, `bad` to `bad_last` is what does not fit: one message where that can be told. `erased` counts
    messages whose contents were erased, which the chain allows.
    """

    ok: bool
    checked: int
    first: int
    last: int
    bad: int | None = None
    bad_last: int | None = None
    erased: int = 0
    hash: str = ""


def as_messages(payload: Payload | Iterable[Payload], limits: Limits, *, kind: str = "message") -> list[NewMessage]:
    """What an application hands over as messages: a text, bytes, a mapping (as JSON), a message, or several of them.

    Raises `TooLargeError` beyond `limits.append_messages_max` and `InvalidError` for a value that is none of these.
    """
    if isinstance(payload, NewMessage | str | bytes | Mapping):
        return [_as_message(payload, kind)]
    messages = [_as_message(item, kind) for item in payload]
    if len(messages) > limits.append_messages_max:
        raise TooLargeError(f"an append has at most {limits.append_messages_max} messages", limit="append_messages_max")
    return messages


def encoded_bytes(message: NewMessage, limits: Limits) -> int:
    """How many bytes a message takes in a frame.

    `TooLargeError` beyond `limits.message_bytes_max` and for JSON nested deeper than `limits.json_depth_max`.
    """
    if isinstance(message.json, msgspec.Raw):
        check_depth(bytes(message.json), limits)
    size = len(_encoder.encode(message))
    if size > limits.message_bytes_max:
        raise TooLargeError(
            f"the encoded message has {size} bytes, the limit is {limits.message_bytes_max}", limit="message_bytes_max"
        )
    return size


def append_bytes_max(limits: Limits) -> int:
    """How many bytes of messages one append may have, so that its frame stays within its own limit too."""
    return min(limits.append_bytes_max, limits.frame_bytes_max - FRAME_BYTES - limits.append_messages_max)


def raw_json(value: Mapping[str, Json] | None) -> msgspec.Raw | msgspec.UnsetType:
    """A JSON object for a frame; None leaves the field out."""
    return UNSET if value is None else msgspec.Raw(_encode(value))


def _as_message(payload: Payload, kind: str) -> NewMessage:
    match payload:
        case NewMessage():
            return payload
        case str():
            return NewMessage(kind=kind, text=payload)
        case bytes():
            return NewMessage(kind=kind, data=payload)
        case Mapping():
            return NewMessage(kind=kind, json=msgspec.Raw(_encode(payload)))
        case _:
            raise InvalidError(f"a message is a text, bytes, a mapping or a NewMessage, not {type(payload).__name__}")


def _encode(value: Mapping[str, Json]) -> bytes:
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidError(f"not a JSON value: {error}", field="json") from None


def as_error(error: BaseException) -> UnbrokenError:
    """Any failure as a typed one."""
    return error if isinstance(error, UnbrokenError) else UnbrokenError(f"{type(error).__name__}: {error}")
