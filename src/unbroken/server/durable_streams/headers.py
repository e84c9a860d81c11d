"""The protocol's request headers as typed values, with every check that needs no store.

Called by the write handlers of this package. Pure: no clock, no socket; a bad value raises `InvalidError` and names the
header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from unbroken.errors import InvalidError
from unbroken.messages import NUMBER_MAX
from unbroken.store.base import Producer

__all__ = [
    "DEFAULT_CONTENT_TYPE",
    "AppendRequest",
    "CreateRequest",
    "ForkRequest",
    "append_request",
    "create_request",
    "expiry_text",
    "matches_etag",
    "media_type",
    "type_header",
]

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """Where a new stream shall branch off: the source's path, an offset (None: its tail), and how far beyond that."""

    path: str
    offset: str | None
    sub_offset: int


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """The headers of a PUT."""

    content_type: str | None
    ttl_seconds: int | None
    expires_ms: int | None
    closed: bool
    fork: ForkRequest | None


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """The headers of a POST."""

    content_type: str | None
    closed: bool
    writer_seq: str | None
    producer: Producer | None


def create_request(headers: Mapping[str, str]) -> CreateRequest:
    """What a PUT asks for."""
    ttl, expires = headers.get("stream-ttl"), headers.get("stream-expires-at")
    if ttl is not None and expires is not None:
        raise InvalidError("Stream-TTL and Stream-Expires-At exclude each other", field="Stream-TTL")
    return CreateRequest(
        content_type=_content_type(headers),
        ttl_seconds=None if ttl is None else _number("Stream-TTL", ttl),
        expires_ms=None if expires is None else _instant_ms(expires),
        closed=_flag(headers, "stream-closed"),
        fork=_fork(headers),
    )


def append_request(headers: Mapping[str, str]) -> AppendRequest:
    """What a POST asks for."""
    return AppendRequest(
        content_type=headers.get("content-type") or None,
        closed=_flag(headers, "stream-closed"),
        writer_seq=headers.get("stream-seq"),
        producer=_producer(headers),
    )


def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case: what two content types are compared by."""
    return content_type.split(";", 1)[0].strip().lower()


def type_header(content_type: str) -> dict[str, str]:
    """A stream's content type as a header; one of another face that no header can carry counts as plain bytes."""
    return {"content-type": content_type if _PRINTABLE.fullmatch(content_type) else DEFAULT_CONTENT_TYPE}


def expiry_text(expires_ms: int) -> str:
    """An instant as RFC 3339 in UTC with milliseconds."""
    return (_EPOCH + timedelta(milliseconds=expires_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def matches_etag(if_none_match: str | None, etag: str) -> bool:
    """Whether `if_none_match` names `etag` (compared weakly) or anything at all."""
    if if_none_match is None:
        return False
    return any(given.strip().removeprefix("W/") in {etag, "*"} for given in if_none_match.split(","))


def _content_type(headers: Mapping[str, str]) -> str | None:
    given = headers.get("content-type") or None
    if given is not None and _PRINTABLE.fullmatch(given) is None:
        raise InvalidError("Content-Type is printable ASCII", field="Content-Type")
    return given


def _flag(headers: Mapping[str, str], name: str) -> bool:
    """Only `true`, in any case, counts; every other value is as good as none."""
    return headers.get(name, "").lower() == "true"


def _number(name: str, text: str) -> int:
    """A decimal number without sign, point, exponent, white space or leading zero."""
    if _NUMBER.fullmatch(text) is None:
        raise InvalidError(f"{name} is a decimal number without sign or leading zero", field=name)
    return int(text)


def _instant_ms(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        zone = "+00:00" if match[4] in "Zz" else match[4]
        instant = datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}")
        whole = (instant - _EPOCH) // timedelta(seconds=1)
    except (ValueError, OverflowError):
        raise InvalidError("Stream-Expires-At is an RFC 3339 timestamp", field="Stream-Expires-At") from None
    milliseconds = whole * 1000 + int((match[3] or "").ljust(3, "0")[:3])
    if milliseconds < 0:
        raise InvalidError("Stream-Expires-At is not before 1970", field="Stream-Expires-At")
    return milliseconds


def _fork(headers: Mapping[str, str]) -> ForkRequest | None:
    path = headers.get("stream-forked-from")
    offset, sub = headers.get("stream-fork-offset"), headers.get("stream-fork-sub-offset")
    if path is None:
        for name, value in (("Stream-Fork-Offset", offset), ("Stream-Fork-Sub-Offset", sub)):
            if value is not None:
                raise InvalidError(f"{name} needs Stream-Forked-From", field=name)
        return None
    return ForkRequest(path, offset, 0 if sub is None else _number("Stream-Fork-Sub-Offset", sub))


def _producer(headers: Mapping[str, str]) -> Producer | None:
    """All three producer headers or none of them."""
    name = headers.get("producer-id")
    numbers = (headers.get("producer-epoch"), headers.get("producer-seq"))
    if name is None and numbers == (None, None):
        return None
    if not name or None in numbers:
        raise InvalidError("Producer-Id, Producer-Epoch and Producer-Seq come together", field="Producer-Id")
    values: list[int] = []
    for header, text in zip(("Producer-Epoch", "Producer-Seq"), numbers, strict=True):
        if text is None or _DIGITS.fullmatch(text) is None or int(text) > NUMBER_MAX:
            raise InvalidError(f"{header} is a decimal number of at most 2**53 - 1", field=header)
        values.append(int(text))
    return Producer(name, *values)
