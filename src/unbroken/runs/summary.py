"""What is known of a run in short: the newest of each kind of message that tells of it, its files and open questions.

The desk reads it for cards that were not there from the beginning. It reads a bounded part of a long stream and keeps
nothing: the stream is the truth.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec
from msgspec import UNSET

from unbroken.messages import Message, Seq, StreamInfo, decode_messages
from unbroken.protocol.views import stream_view
from unbroken.runs.history import CONTROL_KINDS
from unbroken.runs.spec import RunSummary, SummaryMessage
from unbroken.streams import Streams

__all__ = ["Summary", "read_summary"]

QUESTIONS_MAX: Final = 20
FILES_MAX: Final = 100
FIRST_MESSAGES: Final = 100
SHARE: Final = 8
"""One message takes at most the so-manieth part of a summary."""


class Summary:
    """Messages of a run folded into the newest of each kind; they are taken in order, and some may be left out."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[Seq, Message]] = {}
        self._asked: dict[str, tuple[Seq, Message]] = {}
        self._files: deque[tuple[Seq, Message]] = deque(maxlen=FILES_MAX)

    def take(self, seq: Seq, message: Message) -> None:
        """Fold one message in."""
        kind = message.kind
        if kind == "input_required":
            self._asked[_id_of(message)] = seq, message
            if len(self._asked) > QUESTIONS_MAX:
                del self._asked[next(iter(self._asked))]
        elif kind == "file":
            self._files.append((seq, message))
        elif kind in CONTROL_KINDS:
            self._latest[kind] = seq, message
        if kind == "input":
            self._asked.pop(_id_of(message), None)

    def skip(self) -> None:
        """What comes next is left out: whether a question of before is answered in it nobody knows."""
        self._asked.clear()

    def question(self, question: str) -> msgspec.Raw | None:
        """The open question of that id, as it was asked."""
        found = self._asked.get(question)
        body = None if found is None else found[1].json
        return body if isinstance(body, msgspec.Raw) else None

    def messages(self, bytes_max: int) -> list[SummaryMessage]:
        """In order, with at most `bytes_max` bytes of contents; where there is no room for those, `cut` says so."""
        room = bytes_max
        found: list[SummaryMessage] = []
        told = [*self._latest.values(), *self._asked.values(), *self._files]
        for seq, message in sorted(told, key=_place, reverse=True):
            size = _size(message)
            cut = size > min(room, bytes_max // SHARE) or message.kind == "checkpoint" or message.data is not UNSET
            room -= 0 if cut else size
            found.append(
                SummaryMessage(
                    seq=seq,
                    kind=message.kind,
                    time=message.time,
                    text=UNSET if cut else message.text,
                    json=UNSET if cut else message.json,
                    cut=cut,
                )
            )
        return found[::-1]


class _Identified(msgspec.Struct, frozen=True):
    id: str = ""


def _id_of(message: Message) -> str:
    body = message.json
    try:
        return msgspec.json.decode(body, type=_Identified).id if isinstance(body, msgspec.Raw) else ""
    except msgspec.DecodeError:
        return ""


def _place(placed: tuple[Seq, Message]) -> Seq:
    return placed[0]


def _size(message: Message) -> int:
    if isinstance(message.json, msgspec.Raw):
        return len(message.json)
    return 6 * len(message.text) if isinstance(message.text, str) else 0


async def read_summary(streams: Streams, stream: StreamInfo) -> tuple[Summary, RunSummary]:
    """The summary of `stream` up to its head, as a fold and as clients get it.

    Of a stream longer than `run_summary_scan_bytes_max` its beginning and about that much of its end are read; then it is
    not `complete`, and an older message of a kind may be missing, or a question that was asked in the middle.
    """
    limits = streams.limits
    scan, size = limits.run_summary_scan_bytes_max, max(stream.size_bytes, 1)
    summary = Summary()
    at, complete = Seq(stream.first - 1), True
    upto = stream.head if size <= scan else min(stream.head, Seq(at + FIRST_MESSAGES))
    at = await _take(streams, stream, summary, (at, upto))
    for back in (max((stream.head - stream.first + 1) * scan // size, 1), 1):
        if at >= stream.head:
            break
        place = max(at, Seq(stream.head - back))
        if place > at:
            complete = False
            summary.skip()
        at = await _take(streams, stream, summary, (place, stream.head))
    view = RunSummary(
        stream=stream_view(stream),
        messages=summary.messages(limits.run_summary_bytes_max),
        cursor=f"{stream.epoch}:{at}",
        complete=complete,
    )
    return summary, view


async def _take(streams: Streams, stream: StreamInfo, summary: Summary, span: tuple[Seq, Seq]) -> Seq:
    """Fold in what is behind the first of `span` up to the second, in steps, while there is room; up to where."""
    (at, upto), left = span, streams.limits.run_summary_scan_bytes_max
    while at < upto and left > 0:
        found = await streams.read(stream, at, messages_max=upto - at)
        for batch in found.batches:
            for seq, message in enumerate(decode_messages(batch.body), start=batch.first):
                summary.take(Seq(seq), message)
            at, left = batch.last, left - len(batch.body)
        if not found.batches:
            break
    return at
