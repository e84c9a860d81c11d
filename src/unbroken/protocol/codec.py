"""Turns the frames of `unbroken.v1` into bytes and back, with every check that needs no state.

Both ends of a connection and the fault kit call it. It never decides what a frame means: that is `client` and the
server's connection.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from unbroken.errors import ProtocolError, TooLargeError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import SEPARATOR, Message, decode_message, too_deep
from unbroken.protocol.frames import (
    Acks,
    Authorized,
    ClientFrame,
    ErrorFrame,
    Goodbye,
    Heartbeat,
    Hello,
    MessagesFrame,
    Notice,
    Result,
    ServerFrame,
    StateFrame,
    Subscribed,
)

__all__ = [
    "ID_MAX",
    "ReceivedFrame",
    "ReceivedMessages",
    "decode_client",
    "decode_server",
    "encode_client",
    "encode_server",
    "messages_around",
    "messages_frame",
    "messages_prefix",
]

ID_MAX = 2**53 - 1


class ReceivedMessages(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="messages", gc=False):
    """A `messages` frame as a receiver holds it: each message still in the exact bytes that the hash chain covers."""

    stream: str
    epoch: int
    first: int
    hash: str
    messages: list[msgspec.Raw]

    @property
    def last(self) -> int:
        """The seq of its last message; `first` - 1 when it has none."""
        return self.first + len(self.messages) - 1

    def encoded(self) -> list[bytes]:
        """The encoded messages, in order."""
        return [bytes(message) for message in self.messages]

    def decoded(self) -> list[Message]:
        """The messages themselves.

        Raises `ProtocolError` when one of them is none, `TooLargeError` that names the stream when one is too deep.
        """
        try:
            return [decode_message(bytes(message)) for message in self.messages]
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a message is not valid: {error}") from None
        except TooLargeError:
            raise too_deep(stream=self.stream) from None


ReceivedFrame = (
    Hello
    | Authorized
    | Subscribed
    | ReceivedMessages
    | StateFrame
    | Acks
    | Result
    | ErrorFrame
    | Notice
    | Goodbye
    | Heartbeat
)


class _Tag(msgspec.Struct, frozen=True, gc=False):
    type: str


_encoder = msgspec.json.Encoder()
_client_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_server_decoder: msgspec.json.Decoder[ReceivedFrame] = msgspec.json.Decoder(ReceivedFrame)
_tag_decoder = msgspec.json.Decoder(_Tag)
_SERVER_TYPES = frozenset(
    {
        "hello",
        "authorized",
        "subscribed",
        "messages",
        "state",
        "acks",
        "result",
        "error",
        "notice",
        "goodbye",
        "heartbeat",
    }
)


def encode_client(frame: ClientFrame, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """A frame of the client as one WebSocket text; `TooLargeError` beyond `limits.frame_bytes_max`."""
    return _bounded(_encoder.encode(frame), limits)


def decode_client(data: bytes | str, limits: Limits = DEFAULT_LIMITS) -> ClientFrame:
    """A frame as the server receives it.

    Raises `TooLargeError` beyond `limits.frame_bytes_max`, and `ProtocolError` for what is not UTF-8, not JSON, of an
    unknown type, or not as PROTOCOL.md says.
    """
    plain = type(data) is bytes and len(data) <= limits.frame_bytes_max and data.isascii()
    try:
        frame = _client_decoder.decode(data if plain else _utf8(data, limits))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"not a frame of a client: {error}") from None
    number = getattr(frame, "id", 0)
    if not 0 <= number <= ID_MAX:
        raise ProtocolError("an id is a number from 0 to 2**53 - 1")
    return frame


def encode_server(frame: ServerFrame, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """A frame of the server as one WebSocket text; messages are separated as the hash chain wants it."""
    if isinstance(frame, MessagesFrame):
        body = SEPARATOR.join([_encoder.encode(message) for message in frame.messages])
        data = messages_frame(messages_prefix(frame.stream, frame.epoch), frame.first, frame.hash, body)
    else:
        data = _encoder.encode(frame)
    return _bounded(data, limits)


def decode_server(data: bytes | str, limits: Limits = DEFAULT_LIMITS) -> ReceivedFrame | None:
    """A frame as a client receives it; None for a type that this version does not know, which clients ignore.

    Raises `TooLargeError` beyond `limits.frame_bytes_max`, and for messages that are nested too deep to be read here,
    with the stream in its detail; `ProtocolError` for anything else that is not a frame.
    """
    raw = _utf8(data, limits)
    try:
        frame = _server_decoder.decode(raw)
    except RecursionError as error:
        stream = _stream_of_messages(raw)
        if stream is not None:
            raise too_deep(stream=stream) from None
        raise ProtocolError(f"not a frame of a server: {error}") from None
    except msgspec.DecodeError as error:
        if _unknown_type(raw):
            return None
        raise ProtocolError(f"not a frame of a server: {error}") from None
    if isinstance(frame, ReceivedMessages) and frame.first < 1:
        raise ProtocolError("the first seq is 1")
    return frame


def messages_prefix(stream: str, epoch: int) -> bytes:
    """What every `messages` frame of one incarnation of a stream begins with; encode it once and keep it."""
    return b'{"type":"messages","stream":%b,"epoch":%d,"first":' % (_encoder.encode(stream), epoch)


def messages_frame(prefix: bytes, first: int, hash_hex: str, body: bytes) -> bytes:
    """A `messages` frame around a batch body (`messages.join_encoded`), whose bytes are taken over unchanged."""
    head, tail = messages_around(prefix, first, hash_hex)
    return b"".join((head, body, tail))


def messages_around(prefix: bytes, first: int, hash_hex: str) -> tuple[bytes, bytes]:
    """What stands in front of the batch body in a `messages` frame, and behind it."""
    return b'%b%d,"hash":"%b","messages":[' % (prefix, first, hash_hex.encode()), b"]}"


def _utf8(data: bytes | str, limits: Limits) -> bytes:
    """`data` as bytes within the limit and valid UTF-8: fields that are kept raw are not looked at by the decoder."""
    if isinstance(data, str):
        try:
            return _bounded(data.encode(), limits)
        except UnicodeEncodeError:
            raise ProtocolError("a frame is valid Unicode without lone surrogates") from None
    _bounded(data, limits)
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise ProtocolError("a frame is UTF-8") from None
    return data


def _bounded(data: bytes, limits: Limits) -> bytes:
    if len(data) > limits.frame_bytes_max:
        raise TooLargeError(
            f"the frame has {len(data)} bytes, the limit is {limits.frame_bytes_max}", limit="frame_bytes_max"
        )
    return data


def _stream_of_messages(raw: bytes) -> str | None:
    """The stream of a `messages` frame, from its prefix alone; None for other frames."""
    match = _MESSAGES_PREFIX.match(raw)
    try:
        return None if match is None else msgspec.json.decode(match[1], type=str)
    except msgspec.DecodeError:
        return None


_MESSAGES_PREFIX: Final = re.compile(rb'\{"type":"messages","stream":("(?:[^"\\]|\\.)*+")')


def _unknown_type(raw: bytes) -> bool:
    try:
        return _tag_decoder.decode(raw).type not in _SERVER_TYPES
    except (msgspec.DecodeError, RecursionError):
        return False
