"""Server-Sent Events as bytes: the pieces a server writes, and a parser that takes any split of what arrives.

The server's SSE face, the Python client and the tests call it. It never opens a response and never keeps time.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from unbroken.errors import InvalidError, TooLargeError
from unbroken.limits import DEFAULT_LIMITS, Limits

__all__ = ["HEARTBEAT", "ServerEvent", "SseParser", "comment", "event", "message_event", "retry"]

HEARTBEAT = b": heartbeat\n\n"


def retry(milliseconds: int) -> bytes:
    """Tells an `EventSource` how long to wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds


def comment(text: str) -> bytes:
    """A line that receivers ignore; keeps idle connections open."""
    if "\n" in text or "\r" in text:
        raise InvalidError("an SSE comment is one line")
    return b": " + text.encode() + b"\n\n"


def event(name: str, data: bytes) -> bytes:
    """An event without an id: the receiver's last event id, its cursor, stays as it is."""
    return b"event: %b\n%b\n" % (name.encode(), _data_lines(data))


def message_event(epoch: int, seq: int, encoded: bytes) -> bytes:
    """One message as an event: its cursor as id, and its seq put in as the first member of the JSON object."""
    assert encoded.startswith(b"{"), "an encoded message is a JSON object"
    separator = b"" if encoded[1:2] == b"}" else b","
    return b'id: %d:%d\nevent: message\ndata: {"seq":%d%b%b\n\n' % (epoch, seq, seq, separator, encoded[1:])


def _data_lines(data: bytes) -> bytes:
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: %b\n" % line for line in lines)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event as dispatched: `id` is the last event id in force, also when it came with an earlier event."""

    event: str
    data: str
    id: str


class SseParser:
    """The WHATWG algorithm for interpreting an event stream, fed with bytes in any portions.

    UTF-8 is decoded with replacement, one leading byte order mark is dropped, lines end with LF, CR or CRLF. An event
    that the end of the response cuts off is never dispatched. Memory is bounded: a line or an event of more than
    `limits.frame_bytes_max` characters raises `TooLargeError`.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._characters_max = limits.frame_bytes_max
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending: list[str] = []
        self._pending_characters = 0
        self._started = False
        self._after_return = False
        self._event = ""
        self._data: list[str] = []
        self._data_characters = 0
        self._id = ""
        self.last_event_id = ""
        self.retry_milliseconds: int | None = None

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that `data` completes, in order."""
        text = self._decoder.decode(data)
        if text and not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if self._after_return and text:
            text = text.removeprefix("\n")
            self._after_return = False
        self._after_return = self._after_return or text.endswith("\r")
        found: list[ServerEvent] = []
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            self._line("".join((*self._pending, line)), found)
            self._pending, self._pending_characters = [], 0
        if rest:
            self._pending.append(rest)
            self._pending_characters += len(rest)
            self._check(self._pending_characters)
        return found

    def _line(self, line: str, found: list[ServerEvent]) -> None:
        if not line:
            self._dispatch(found)
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
                self._data_characters += len(value) + 1
                self._check(self._data_characters)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_milliseconds = int(value[:12])
            case _:
                return

    def _dispatch(self, found: list[ServerEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            found.append(ServerEvent(self._event or "message", "\n".join(self._data), self._id))
        self._event, self._data, self._data_characters = "", [], 0

    def _check(self, characters: int) -> None:
        if characters > self._characters_max:
            raise TooLargeError(f"an event has more than {self._characters_max} characters", limit="frame_bytes_max")
