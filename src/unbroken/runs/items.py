"""What a run may yield, and the messages that it becomes.

The runs of this process use it for every item. It is pure: it stores nothing and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from unbroken.limits import Limits
from unbroken.messages import NewMessage

__all__ = ["Item", "as_messages"]

Item = str | bytes | NewMessage | Mapping[str, object] | Sequence[object] | int | float | bool | None
"""Text, bytes, a message of any kind, or any other value as JSON."""


def as_messages(item: Item, limits: Limits) -> Iterator[NewMessage]:
    """The messages for one item: one, or several for a text or bytes that are too large for one.

    Raises `TypeError` for what is no JSON value.
    """
    if isinstance(item, NewMessage):
        yield item
    elif isinstance(item, str):
        step = limits.message_bytes_max // 8  # a character takes at most six bytes of JSON
        for start in range(0, max(len(item), 1), step):
            yield NewMessage(kind="text", text=item[start : start + step])
    elif isinstance(item, bytes | bytearray | memoryview):
        data = bytes(item)
        step = limits.message_bytes_max // 2  # in base64 four bytes stand for three
        for start in range(0, max(len(data), 1), step):
            yield NewMessage(kind="data", data=data[start : start + step])
    else:
        yield NewMessage(kind="json", json=msgspec.Raw(msgspec.json.encode(item)))
