"""Branching off: where a fork begins, what of the source it takes along, and whether an existing stream is that fork.

Called by `write` for a PUT with `Stream-Forked-From`. It reads sources and never writes; that the source is still there
when the fork is made is checked by the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from unbroken.errors import AlreadyExistsError, EpochMismatchError, InvalidError, NotFoundError
from unbroken.identity import Verb
from unbroken.messages import Message, NewMessage, Seq, StreamInfo, decode_messages
from unbroken.server.durable_streams.content import Content, body_messages, payload
from unbroken.server.durable_streams.exchange import Exchange, Refusal
from unbroken.server.durable_streams.headers import ForkRequest
from unbroken.server.durable_streams.offsets import BEGINNING, Offset

__all__ = ["PREFIX_KIND", "Branch", "branch_off", "is_fork"]

PREFIX_KIND: Final = "fork-prefix"
"""The kind of a fork's first messages when it begins inside one of its source's: they hold that part of it."""


@dataclass(frozen=True, slots=True)
class Branch:
    """The place to branch off at: behind message `seq` of `source`, and behind `prefix`, the beginning of what follows."""

    source: StreamInfo
    seq: Seq
    prefix: bytes = b""

    def messages(self, message_bytes_max: int) -> list[NewMessage]:
        """The prefix as the fork's own first messages."""
        content = Content.of(self.source.content_type)
        if not self.prefix:
            return []
        return body_messages(content, self.prefix, message_bytes_max=message_bytes_max, kind=PREFIX_KIND)


async def branch_off(exchange: Exchange, request: ForkRequest) -> Branch:
    """Where `request` wants to branch off.

    404 when there is no such source, 409 when only its forks keep it, 400 for an offset or sub-offset that it does not
    have.
    """
    source = await _source(exchange, request.path)
    seq = await _fork_seq(exchange, source, request.offset)
    if request.sub_offset == 0:
        return Branch(source, seq)
    return await _inside(exchange, Branch(source, seq), request.sub_offset)


async def is_fork(exchange: Exchange, existing: StreamInfo, branch: Branch, *, anywhere: bool) -> bool:
    """Whether `existing` branched off at `branch`; with `anywhere` only the source counts."""
    if existing.forked_from != branch.source.id:
        return False
    if anywhere:
        return True
    return existing.fork_seq == branch.seq and await _prefix(exchange, existing) == branch.prefix


async def _source(exchange: Exchange, path: str) -> StreamInfo:
    name = unquote(path.removeprefix(exchange.origin))
    known = name.startswith(exchange.root) and len(name) > len(exchange.root)
    source = await exchange.find(Verb.READ, name.removeprefix(exchange.root)) if known else None
    if source is None:
        raise NotFoundError(f"there is no stream {path!r} to fork from")
    if source.deleted:
        raise AlreadyExistsError(f"the stream {path!r} is deleted, only its forks keep it")
    return source


async def _fork_seq(exchange: Exchange, source: StreamInfo, offset: str | None) -> Seq:
    if offset is None:
        return source.head
    wanted = Offset.parse(offset)
    if wanted == BEGINNING:
        return Seq(0)
    try:
        seq = (await exchange.lineage(source)).seq(wanted)
    except EpochMismatchError as error:
        raise Refusal(InvalidError("the source never gave out this offset", field="Stream-Fork-Offset"), 400) from error
    if seq > source.head:
        raise InvalidError("the offset is beyond the source's tail", field="Stream-Fork-Offset", head=source.head)
    return seq


async def _inside(exchange: Exchange, branch: Branch, sub_offset: int) -> Branch:
    """`sub_offset` messages (JSON) or bytes behind `branch`, within the one append that follows there."""
    source, content = branch.source, Content.of(branch.source.content_type)
    left, seq = sub_offset, branch.seq
    for message in await _one_append(exchange, source, seq):
        data = payload(content, message)
        size = 1 if content is Content.JSON else len(data)
        if size > left:
            return Branch(source, seq, data[:left])
        left, seq = left - size, Seq(seq + 1)
        if left == 0:
            return Branch(source, seq)
    raise InvalidError("the sub-offset is beyond the append that it counts into", field="Stream-Fork-Sub-Offset")


async def _one_append(exchange: Exchange, source: StreamInfo, after: Seq) -> list[Message]:
    """The messages of the append that follows `after`, or what is left of it there."""
    found: list[Message] = []
    while after < source.head:
        read = await exchange.services.streams.read(source, after)
        for batch in read.batches:
            for message in decode_messages(batch.body):
                if found and not message.continues:
                    return found
                found.append(message)
            after = batch.last
    return found


async def _prefix(exchange: Exchange, fork: StreamInfo) -> bytes:
    """What `fork` took along of the message that it begins inside."""
    if fork.first > fork.fork_seq + 1:
        return b""  # trimmed away
    content = Content.of(fork.content_type)
    own = await _one_append(exchange, fork, fork.fork_seq)
    return b"".join([payload(content, message) for message in own if message.kind == PREFIX_KIND])
