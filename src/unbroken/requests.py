"""What may be asked of streams, as values: how a new one shall be, how to append; and whether such is within bounds.

The faces fill these in, `Streams` takes them. Pure: nothing here opens, remembers or awaits anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from unbroken.errors import InvalidError, TooLargeError
from unbroken.identity import Principal
from unbroken.limits import Limits
from unbroken.messages import NewMessage, check_depth, check_name
from unbroken.store.base import Close, Fork, Producer

__all__ = ["PLAIN", "AppendOptions", "NewStream", "check_json", "check_new", "check_producer"]

_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStream:
    """What a stream shall be; see `store.base.CreateStream` for the fields."""

    kind: str = "stream"
    content_type: str = "application/json"
    session: str | None = None
    metadata: str = "{}"
    ttl_seconds: int | None = None
    expires_ms: int | None = None
    fork: Fork | None = None
    messages: tuple[NewMessage, ...] = ()
    close: Close | None = None
    lease: Producer | None = None
    lease_seconds: float | None = None
    run: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendOptions:
    """How to append; see `store.base.Append` for the fields.

    `by_name`: what is meant is the stream that has the name when the append takes effect, should the known one be gone.
    `verbatim`: nothing is taken out of the messages, whose digest is announced elsewhere; no face offers it.
    `by`: who asks, and is charged; None is the owner of the stream.
    """

    producer: Producer | None = None
    expected_head: int | None = None
    writer_seq: str | None = None
    close: Close | None = None
    by_name: bool = False
    beside_lease: bool = False
    verbatim: bool = False
    by: Principal | None = None


PLAIN: Final = AppendOptions()


def check_new(name: str, new: NewStream, limits: Limits) -> None:
    """Raise `InvalidError` or `TooLargeError` unless a stream can have this name and be like this."""
    check_name(name, limits)
    if new.session is not None:
        check_name(new.session, limits)
    if not 1 <= len(new.kind.encode()) <= limits.kind_bytes_max:
        raise InvalidError("a kind has 1 to 64 bytes", field="kind")
    if not (1 <= len(new.content_type) <= limits.content_type_bytes_max and _PRINTABLE.fullmatch(new.content_type)):
        raise InvalidError("a content type has 1 to 256 printable ASCII characters", field="content_type")
    if new.ttl_seconds is not None and not 0 <= new.ttl_seconds <= limits.ttl_seconds_max:
        raise InvalidError(f"ttl_seconds is 0 to {limits.ttl_seconds_max}", field="ttl_seconds")
    check_json("metadata", new.metadata, limits.metadata_bytes_max, limits)
    if new.lease is not None:
        check_producer(new.lease, limits)


def check_json(what: str, text: str, bytes_max: int, limits: Limits) -> None:
    """`text` is a JSON object of at most `bytes_max` bytes, nested no deeper than a message may be."""
    try:
        encoded = text.encode()
        if len(encoded) > bytes_max:
            raise TooLargeError(f"{what} has at most {bytes_max} bytes", limit=f"{what}_bytes_max")
        check_depth(encoded, limits)
        msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise InvalidError(f"{what} is a JSON object", field=what) from None


def check_producer(producer: Producer, limits: Limits) -> None:
    """`InvalidError` unless the producer's id and numbers are within their bounds."""
    if not 1 <= len(producer.id.encode()) <= limits.producer_id_bytes_max:
        raise InvalidError(f"a producer id has 1 to {limits.producer_id_bytes_max} bytes", field="producer.id")
    if not (0 <= producer.epoch < 2**53 and 0 <= producer.seq < 2**53):
        raise InvalidError("a producer's epoch and seq are 0 to 2**53 - 1", field="producer")
