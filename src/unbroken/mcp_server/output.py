"""What an agent is shown: JSON of a bounded size, in which nothing that a program printed can pass for anything but data.

The tools build their answers with it. Pure: it asks for nothing and stores nothing.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET

from unbroken.client.values import Json, Received
from unbroken.errors import InvalidError, UnbrokenError
from unbroken.limits import Limits
from unbroken.protocol.frames import StreamView

__all__ = ["encoded", "error_text", "fitting", "shown_message", "shown_stream", "shown_value"]

T = TypeVar("T")
Shown = dict[str, Json]
_HIDDEN: Final = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
"""Characters that a reader does not see and that change what it sees: C1 controls, directions, invisible tags."""


def encoded(value: object) -> str:
    """`value` as JSON in which every control character and every invisible one is written as an escape."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidError(f"not a JSON value: {error}", field="json") from None
    return _HIDDEN.sub(_escape, text)


def size(value: object) -> int:
    """The bytes that `value` takes in an answer."""
    return len(encoded(value).encode())


def fitting(items: Sequence[T], show: Callable[[T], Shown], bytes_max: int) -> list[Json]:
    """As many of `items`, from the first, as `bytes_max` have room for; of some always one."""
    found: list[Json] = []
    left = bytes_max
    for item in items:
        shown = show(item)
        left -= size(shown) + 1
        if found and left < 0:
            break
        found.append(shown)
    return found


def shown_stream(view: StreamView) -> Shown:
    """A stream in a list and at the head of an answer: without what its creator may have stuffed into it."""
    shown: Shown = {
        "stream": view.stream,
        "state": view.state,
        "cursor": view.cursor,
        "kind": view.kind,
        "created": view.created,
        "updated": view.updated,
    }
    if view.session is not None:
        shown["session"] = view.session
    if view.ended is not None:
        shown["ended"] = view.ended
    if view.cancel_requested and view.ended is None:
        shown["cancel_requested"] = True
    return shown


def shown_value(name: str, raw: msgspec.Raw | bytes, bytes_max: int) -> Shown:
    """`{name: value}`; of a value that is too large, the beginning of its JSON text and its size."""
    try:
        value: Json = msgspec.json.decode(raw)
        if size(value) <= bytes_max:
            return {name: value}
    except (msgspec.DecodeError, RecursionError, InvalidError):
        pass
    text = bytes(raw).decode(errors="replace")
    return {f"{name}_cut": _cut(text, bytes_max), f"{name}_bytes": len(raw)}


def shown_message(received: Received, bytes_max: int) -> Shown:
    """One message; `text_cut`, `json_cut` or `data_cut` instead of the payload where that is too large."""
    message = received.message
    shown: Shown = {"seq": received.seq, "kind": received.kind}
    if message.text is not UNSET:
        whole = size(message.text) <= bytes_max
        payload: Shown = (
            {"text": message.text}
            if whole
            else {"text_cut": _cut(message.text, bytes_max), "text_bytes": len(message.text.encode())}
        )
    elif message.json is not UNSET:
        payload = shown_value("json", message.json, bytes_max)
    else:
        assert message.data is not UNSET
        data = b64encode(message.data[: bytes_max // 4 * 3]).decode()
        whole = len(message.data) <= bytes_max // 4 * 3
        payload = {"data": data} if whole else {"data_cut": data, "data_bytes": len(message.data)}
    return {**shown, **payload}


def error_text(error: UnbrokenError, limits: Limits) -> str:
    """An error for an agent: its code, what happened, the facts, and what to do about it."""
    facts = {name: value for name, value in error.detail.items() if value is not None}
    lines = [f"error[{error.code}]: {_line(error.message)}"]
    if facts:
        lines.append(f"facts: {encoded(facts)}")
    lines.append(f"retryable: {'yes' if error.retryable else 'no'}")
    if error.cure:
        lines.append(f"cure: {error.cure}")
    return "\n".join(line[: limits.agent_error_characters_max] for line in lines)


def _line(text: str) -> str:
    """`text` on one line, without quotes around it, controls and invisible characters escaped."""
    return encoded(text)[1:-1].replace('\\"', '"')


def _cut(text: str, bytes_max: int) -> str:
    """The longest beginning of `text` of about `bytes_max` that fits in any case."""
    cut = text[:bytes_max]
    while size(cut) > bytes_max:
        cut = cut[: len(cut) * max(bytes_max, 2) // (size(cut) + 1)]
    return cut


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _units(ord(match[0])))


def _units(character: int) -> tuple[int, ...]:
    """A character in UTF-16, as JSON escapes it."""
    if character < 0x10000:
        return (character,)
    above = character - 0x10000
    return 0xD800 + (above >> 10), 0xDC00 + (above & 0x3FF)
