"""The values that everything else speaks of: cursors, messages, states, streams, sessions.

All are immutable and pure. A message is encoded to JSON exactly once, when it enters the log; the same bytes are hashed,
stored and sent to every viewer, so this module also owns that encoding and the rule for joining and splitting it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Final, NewType

import msgspec
from msgspec import UNSET, UnsetType

from unbroken.errors import InvalidError, TooLargeError
from unbroken.limits import Limits

__all__ = [
    "FILE_KIND",
    "SEPARATOR",
    "START",
    "TERMINAL_STATES",
    "TRANSITIONS",
    "UNREADABLE",
    "Cursor",
    "Epoch",
    "Message",
    "NewMessage",
    "Seq",
    "SessionInfo",
    "SessionState",
    "StreamId",
    "StreamInfo",
    "StreamState",
    "can_transition",
    "check_depth",
    "check_name",
    "decode_message",
    "decode_messages",
    "encode_message",
    "join_encoded",
    "payload_bytes",
    "split_encoded",
    "too_deep",
]

Seq = NewType("Seq", int)
Epoch = NewType("Epoch", int)
StreamId = NewType("StreamId", int)

NUMBER_MAX = 2**53 - 1
SEPARATOR = b",\n"
"""Between two encoded messages. An encoded message never holds a raw line feed, so splitting at it is exact, and a joined
batch is the inside of a JSON array as it stands."""


class StreamState(StrEnum):
    """Where a stream is in its life; see `TRANSITIONS`."""

    OPEN = "open"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"

    @property
    def terminal(self) -> bool:
        """Whether the stream has ended: no message, and no other state, ever follows."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset(
    {
        StreamState.COMPLETED,
        StreamState.FAILED,
        StreamState.CANCELLED,
        StreamState.TIMED_OUT,
        StreamState.INTERRUPTED,
    }
)

TRANSITIONS: dict[StreamState, frozenset[StreamState]] = {
    # open: takes messages from anybody allowed; nobody holds a lease on it
    StreamState.OPEN: frozenset({StreamState.RUNNING, StreamState.PAUSED}) | TERMINAL_STATES,
    # running: a producer holds a lease; when the lease runs out the reaper ends the stream as interrupted
    StreamState.RUNNING: frozenset({StreamState.RUNNING, StreamState.OPEN, StreamState.PAUSED}) | TERMINAL_STATES,
    # paused: the producer rests on purpose, without a lease
    StreamState.PAUSED: frozenset({StreamState.RUNNING, StreamState.OPEN}) | TERMINAL_STATES,
    **{state: frozenset() for state in TERMINAL_STATES},
}


def can_transition(source: StreamState, target: StreamState) -> bool:
    """Whether the life cycle allows going from `source` to `target`."""
    return target in TRANSITIONS[source]


class SessionState(StrEnum):
    """Whether a session is in use; both directions are allowed."""

    ACTIVE = "active"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """What a viewer holds: "I have everything of this epoch up to and including seq"."""

    epoch: Epoch
    seq: Seq

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `epoch:seq`, two decimal numbers below 2**53; anything else raises `InvalidError`."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidError("a cursor is two decimal numbers joined by a colon, as in 7:120", field="cursor")
        epoch, seq = int(match[1]), int(match[2])
        if epoch > NUMBER_MAX or seq > NUMBER_MAX:
            raise InvalidError("a cursor's numbers are below 2**53", field="cursor")
        return cls(Epoch(epoch), Seq(seq))


_CURSOR = re.compile(r"(0|[1-9][0-9]{0,15}):(0|[1-9][0-9]{0,15})", re.ASCII)
START = Seq(0)
"""The seq of a cursor in front of the first message."""


class NewMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A message as a producer hands it over: a kind and exactly one of `text`, `json` and `data`.

    `json` is any JSON value, kept as it was written except for white space; `data` is bytes (base64 on a JSON wire).
    `continues` marks a message that belongs to the same append as the message before it.
    """

    kind: str = "message"
    text: str | UnsetType = UNSET
    json: msgspec.Raw | UnsetType = UNSET
    data: bytes | UnsetType = UNSET
    continues: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A stored message. `seq` is its place in the stream and is not part of its encoding: it follows from the batch.

    One with a `leaf` was erased: it has no payload, and its leaf in the hash chain is kept (hex), so that the chain holds.
    `time` is the wall time of its append in milliseconds, for display only; order is `seq` alone.
    """

    leaf: str | UnsetType = UNSET
    kind: str = "message"
    time: int = 0
    producer: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    json: msgspec.Raw | UnsetType = UNSET
    data: bytes | UnsetType = UNSET
    continues: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)
_batch_decoder = msgspec.json.Decoder(list[Message])


def encode_message(message: NewMessage, *, time_ms: int, producer: str | None, limits: Limits) -> bytes:
    """The one encoding of a message: compact JSON without a raw line feed.

    Raises `InvalidError` when not exactly one payload is set or the kind is out of bounds, `TooLargeError` when the result
    is longer than `limits.message_bytes_max` or `json` is nested deeper than `limits.json_depth_max`.
    """
    payload = message.json
    if (message.text is UNSET) + (payload is UNSET) + (message.data is UNSET) != 2:
        raise InvalidError("a message has exactly one of text, json and data", field="messages")
    kind = message.kind
    if kind != _USUAL_KIND and (not kind or len(kind) > limits.kind_bytes_max or not _KIND.fullmatch(kind)):
        raise InvalidError("a kind is 1 to 64 letters, digits and . _ - / :", field="kind")
    if (
        message.text is not UNSET and producer is None and not message.continues
    ):  # the usual one, with less to hand over
        stored = Message(kind=kind, time=time_ms, text=message.text)
    else:
        stored = Message(
            kind=kind,
            time=time_ms,
            producer=UNSET if producer is None else producer,
            text=message.text,
            json=UNSET if payload is UNSET else _compact(payload, limits),
            data=message.data,
            continues=message.continues,
        )
    encoded = _encoder.encode(stored)
    if len(encoded) > limits.message_bytes_max:
        raise TooLargeError(
            f"the encoded message has {len(encoded)} bytes, the limit is {limits.message_bytes_max}",
            limit="message_bytes_max",
        )
    return encoded


_USUAL_KIND: Final = "message"
_KIND = re.compile(r"[A-Za-z0-9._/:-]+", re.ASCII)


def _compact(raw: msgspec.Raw, limits: Limits) -> msgspec.Raw:
    """`raw` with white space removed where it could hold a line feed; an invalid value raises `InvalidError`."""
    data = bytes(raw)
    if not data:
        raise InvalidError("a json payload is empty", field="json")
    check_depth(data, limits)
    if b"\n" not in data and b"\r" not in data:
        return raw
    try:
        return msgspec.Raw(msgspec.json.format(data, indent=-1))
    except msgspec.DecodeError as error:
        raise InvalidError(f"a json payload is not JSON: {error}", field="json") from None
    except RecursionError:
        raise too_deep() from None


def check_depth(data: bytes, limits: Limits) -> None:
    """Refuse JSON nested deeper than `limits.json_depth_max` with `TooLargeError`; expects that `data` is JSON.

    Whoever stores JSON that others decode calls it: a decoder needs stack for each level, and how much of it a reader has
    left nobody here can know. What has few brackets costs next to nothing.
    """
    most = limits.json_depth_max
    if len(data) <= most or data.count(b"[") + data.count(b"{") <= most:
        return
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    steps = b"".join(data.split(b'"')[::2]).translate(_STEPS, _LEVEL)  # every second piece is outside a string
    if max(accumulate(memoryview(steps).cast("b")), default=0) > most:
        raise too_deep()


_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""A bracket as the signed byte by which the depth changes."""
_LEVEL: Final = bytes(set(range(256)) - set(b"[{]}"))


def too_deep(**where: str) -> TooLargeError:
    """The error for JSON that is nested deeper than allowed, or than the stack of who reads it here has room for."""
    return TooLargeError("the JSON is nested too deep", limit="json_depth_max", **where)


def join_encoded(messages: list[bytes] | tuple[bytes, ...]) -> bytes:
    """One batch body: encoded messages with `SEPARATOR` between them."""
    return SEPARATOR.join(messages)


def split_encoded(body: bytes) -> list[bytes]:
    """The encoded messages of a batch body; the inverse of `join_encoded` (an empty body has none)."""
    return body.split(SEPARATOR) if body else []


UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What reading JSON that somebody else has written may raise: it is none, it is too deep, or it is not UTF-8."""


def decode_message(encoded: bytes) -> Message:
    """A message from its encoding; `TooLargeError` when its JSON is too deep for the stack that is left."""
    try:
        return _decoder.decode(encoded)
    except RecursionError:
        raise too_deep() from None


def decode_messages(body: bytes) -> list[Message]:
    """All messages of a batch body; raises as `decode_message` does."""
    try:
        return _batch_decoder.decode(b"[" + body + b"]")
    except RecursionError:
        raise too_deep() from None


def payload_bytes(message: Message) -> bytes:
    """The payload as bytes: UTF-8 of a text, the JSON text of a value, or the bytes themselves."""
    if message.text is not UNSET:
        return message.text.encode()
    if message.json is not UNSET:
        return bytes(message.json)
    return message.data if message.data is not UNSET else b""


def check_name(name: str, limits: Limits) -> str:
    """`name` if it can name a stream or session, else `InvalidError`.

    A name is path-like: segments joined by `/`, none of them empty, `.` or `..`, without control characters and not
    longer than `limits.name_bytes_max` bytes of UTF-8.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidError("a name is valid Unicode without lone surrogates", field="name") from None
    if not 1 <= len(encoded) <= limits.name_bytes_max:
        raise InvalidError(f"a name has 1 to {limits.name_bytes_max} bytes", field="name")
    if _CONTROL.search(name):
        raise InvalidError("a name has no control characters", field="name")
    if any(segment in {"", ".", ".."} for segment in name.split("/")):
        raise InvalidError("a name has no empty, '.' or '..' segments", field="name")
    return name


FILE_KIND: Final = "file"
"""The kind of a stream that is a file: the payloads of its messages are its bytes."""


def files_prefix(run: str) -> str:
    """What the names of the files of the run `run` begin with."""
    return f"{run}/files/"


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session as stored: one user's conversation or workspace, which groups streams."""

    tenant: str
    owner: str
    name: str
    state: SessionState
    metadata: str = "{}"
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """A stream as stored, without its messages.

    `first` and `head` are the oldest retained and the newest seq (1 and 0 when nothing was ever written); `hash` is the
    chain's value at `head`, `genesis` its value in front of message 1 (of a fork: at `fork_seq`), `salts` what makes its
    leaves unguessable (see `protocol.salts`; empty for a stream without). `reason` is a JSON object
    that says why the stream ended (for example `{"exit_code": 2}`). `run` is what the server executes for the stream (a
    JSON object, see `runs.spec`), None when somebody else produces. A lease names the producer that holds the right to
    produce, its epoch, when it runs out and for how long it was last given. `deleted` marks a stream that only its forks
    keep. `erased` says by whom, when and why what it held was erased (a JSON object).
    """

    id: StreamId
    epoch: Epoch
    tenant: str
    owner: str
    name: str
    kind: str = "stream"
    content_type: str = "application/json"
    session: str | None = None
    metadata: str = "{}"
    state: StreamState = StreamState.OPEN
    reason: str = "{}"
    first: Seq = Seq(1)
    head: Seq = START
    size_bytes: int = 0
    hash: bytes = field(default=b"", repr=False)
    genesis: bytes = field(default=b"", repr=False)
    salts: bytes = field(default=b"", repr=False)
    created_ms: int = 0
    updated_ms: int = 0
    ended_ms: int | None = None
    ttl_seconds: int | None = None
    expires_ms: int | None = None
    lease_producer: str | None = None
    lease_epoch: int = 0
    lease_until_ms: int | None = None
    lease_ms: int | None = None
    cancel_requested_ms: int | None = None
    cancel_requested_by: str | None = None
    writer_seq: str | None = None
    forked_from: StreamId | None = None
    fork_seq: Seq = START
    deleted: bool = False
    run: str | None = None
    erased: str | None = None

    @property
    def cursor(self) -> Cursor:
        """The cursor of a viewer that has everything."""
        return Cursor(self.epoch, self.head)
