"""How bodies become messages and messages become bodies again, for each of the protocol's three kinds of content.

Called by the read and write handlers of this package. Pure; what goes in comes out byte for byte, except for white space
between the values of a JSON body.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

import msgspec
from msgspec import UNSET

from unbroken.errors import InvalidError
from unbroken.messages import Message, NewMessage, decode_messages, payload_bytes
from unbroken.server.durable_streams.headers import media_type

__all__ = ["Content", "body_messages", "page_body", "payload"]

_ENCODED_PER_CHARACTER: Final = 8
"""More bytes than one character or byte of a payload can take in an encoded message (an escape takes six)."""
_raw_decoder: Final = msgspec.json.Decoder(msgspec.Raw)
_array_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Content(Enum):
    """What a stream's content type makes of a body."""

    JSON = "json"
    """Every element of an array is a message, and a read gives an array."""
    TEXT = "text"
    BYTES = "bytes"

    @classmethod
    def of(cls, content_type: str) -> Content:
        """The kind of content of `content_type`; its parameters are not looked at."""
        media = media_type(content_type)
        if media == "application/json":
            return cls.JSON
        return cls.TEXT if media.startswith("text/") else cls.BYTES


def body_messages(content: Content, body: bytes, *, message_bytes_max: int, kind: str = "message") -> list[NewMessage]:
    """The messages of one append; all but the first have `continues`.

    A JSON array is taken apart by one level, so an empty one gives none. Text and bytes are one message unless that would
    be larger than `message_bytes_max`; text that is not UTF-8 is kept as bytes. Raises `InvalidError` for bad JSON.
    """
    if content is Content.JSON:
        values = _json_values(body)
        return [NewMessage(kind=kind, json=value, continues=place > 0) for place, value in enumerate(values)]
    step = max(1, message_bytes_max // _ENCODED_PER_CHARACTER)
    text = _utf8(body) if content is Content.TEXT else None
    if text is not None:
        return [
            NewMessage(kind=kind, text=text[place : place + step], continues=place > 0)
            for place in range(0, len(text), step)
        ]
    return [
        NewMessage(kind=kind, data=body[place : place + step], continues=place > 0)
        for place in range(0, len(body), step)
    ]


def page_body(content: Content, encoded: Iterable[bytes]) -> bytes:
    """The body of a read of these batch bodies."""
    payloads = [payload(content, message) for body in encoded for message in decode_messages(body)]
    return b"[" + b",".join(payloads) + b"]" if content is Content.JSON else b"".join(payloads)


def payload(content: Content, message: Message) -> bytes:
    """What one message is in a body. In JSON, a text is a string and bytes are a string of base64."""
    if content is not Content.JSON or message.json is not UNSET:
        return payload_bytes(message)
    return msgspec.json.encode(
        message.text if message.text is not UNSET else b64encode(payload_bytes(message)).decode()
    )


def _json_values(body: bytes) -> Iterator[msgspec.Raw]:
    if _utf8(body) is None:
        raise InvalidError("a JSON body is UTF-8", field="body")
    try:
        whole = _raw_decoder.decode(body)
        values = _array_decoder.decode(body) if bytes(whole).startswith(b"[") else [whole]
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"the body is not JSON: {error}", field="body") from None
    return iter(values)


def _utf8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
