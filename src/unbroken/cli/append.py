# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb append: messages from standard input, a line each, or one from the command line or a file.

It reads no faster than the server takes, holds a bounded amount, and counts a message only when it is durable.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async, within
from unbroken.cli.exits import Exit, UsageError
from unbroken.cli.output import clean, note, print_json
from unbroken.errors import EndedError, InvalidError, NotFoundError
from unbroken.limits import DEFAULT_LIMITS, KIB
from unbroken.messages import NewMessage
from unbroken.runs.framing import Lines

if TYPE_CHECKING:
    from unbroken.client import Client, Producer

__all__ = ["append"]

READ_BYTES: Final = 64 * KIB
LINE_BYTES_MAX: Final = DEFAULT_LIMITS.message_bytes_max // 8
"""A longer line becomes several messages; escaped as JSON each still fits in one."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is appended: exactly one of these, or else the lines of standard input."""

    text: Annotated[str | None, Parameter(help="One message with this text.")] = None
    value: Annotated[str | None, Parameter(help="One message with this JSON value.")] = None
    data_file: Annotated[Path | None, Parameter(help="One message with the bytes of this file.")] = None
    ndjson: Annotated[bool, Parameter(negative="", help="Each line of standard input is a JSON value.")] = False

    def single(self, kind: str) -> NewMessage | None:
        """The one message that the options hold; None for standard input."""
        given = [option for option in (self.text, self.value, self.data_file) if option is not None]
        if len(given) + self.ndjson > 1:
            raise UsageError("at most one of --text, --value, --data-file and --ndjson may be given")
        if self.text is not None:
            return NewMessage(kind=kind, text=self.text)
        if self.value is not None:
            return _json_message(kind, self.value.encode(errors="surrogateescape"))
        if self.data_file is not None:
            try:
                return NewMessage(kind=kind, data=self.data_file.read_bytes())
            except OSError as error:
                raise InvalidError(f"the file cannot be read: {error}", field="data_file") from None
        return None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How the stream begins and ends."""

    create: Annotated[bool, Parameter(negative="", help="Create the stream when it does not exist.")] = False
    session: Annotated[str | None, Parameter(help="The session of a stream that is created.")] = None
    close: Annotated[
        bool,
        Parameter(
            negative="",
            help="End the stream as completed at the end of the input; if this command dies, it ends as interrupted.",
        ),
    ] = False


DEFAULT_SOURCE: Final = Source()
DEFAULT_TARGET: Final = Target()


def append(
    name: str,
    /,
    *,
    source: Source = DEFAULT_SOURCE,
    target: Target = DEFAULT_TARGET,
    kind: str = "message",
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Append messages to a stream, one for each line of standard input: command | unbroken append NAME.

    Prints how many messages are durable. A line keeps its line feed, so that `tail` gives the input back byte by byte.

    Args:
        name: The stream's name.
        kind: The kind of the messages.
    """
    return run_async(_append(name, source.single(kind), source, target, (kind, json), connection))


async def _append(
    name: str,
    single: NewMessage | None,
    source: Source,
    target: Target,
    form: tuple[str, bool],
    connection: Connection,
) -> int:
    kind, json = form
    count, cancelled = 0, False
    async with connection.client() as client:
        await _make_sure(client, name, target)
        lease = DEFAULT_LIMITS.lease_seconds if target.close else None
        async with client.producer(name, id=f"append-{secrets.token_hex(6)}", lease_seconds=lease) as producer:
            if single is not None:
                await producer.append(single)
                count = 1
            else:
                count = await _pipe(producer, kind, ndjson=source.ndjson)
                await producer.flush()
            cancelled = producer.cancel_requested.is_set()
            if target.close:
                await producer.close("cancelled" if cancelled else "completed")
    if json:
        print_json({"stream": name, "acknowledged": count, "cancelled": cancelled})
    else:
        sys.stdout.write(f"{count} messages acknowledged by {clean(name)}\n")
    return Exit.ENDED_BADLY if cancelled else Exit.OK


async def _make_sure(client: Client, name: str, target: Target) -> None:
    """The stream exists and goes on."""
    if target.create:
        await within(DEFAULT_LIMITS.handshake_seconds_max, client.create(name, session=target.session))
    try:
        view = await client.state(name)
    except NotFoundError as error:
        raise NotFoundError(f"{error.message}; --create creates it", **error.detail) from None
    if view.ended is not None:
        raise EndedError(f"the stream {name} has ended: {view.state}", state=view.state, head=view.head)


async def _pipe(producer: Producer, kind: str, *, ndjson: bool) -> int:
    """Send standard input until its end, or until somebody asks the stream's producer to stop."""
    lines, count = Lines(LINE_BYTES_MAX), 0
    async for data in _standard_input():
        pieces = lines.feed(data) if data else lines.finish()
        messages = _messages(kind, pieces, ndjson=ndjson)
        for start in range(0, len(messages), DEFAULT_LIMITS.append_messages_max):
            await producer.send(messages[start : start + DEFAULT_LIMITS.append_messages_max])
        count += len(messages)
        if producer.cancel_requested.is_set():
            note("asked to stop")
            break
    return count


def _messages(kind: str, pieces: list[bytes], *, ndjson: bool) -> list[NewMessage]:
    if ndjson:
        return [_json_message(kind, piece) for piece in pieces if piece.strip()]
    messages = []
    for piece in pieces:
        try:
            messages.append(NewMessage(kind=kind, text=piece.decode()))
        except UnicodeDecodeError:
            messages.append(NewMessage(kind=kind, data=piece))
    return messages


def _json_message(kind: str, value: bytes) -> NewMessage:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidError(f"not a JSON value: {error}", field="value") from None
    return NewMessage(kind=kind, json=msgspec.Raw(value.strip()))


async def _standard_input() -> AsyncIterator[bytes]:
    """What can be read, as soon as it can be; an empty piece last. Nothing is read that is not asked for."""
    descriptor = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    while True:
        readable = asyncio.Event()
        try:
            loop.add_reader(descriptor, readable.set)
        except (OSError, NotImplementedError):  # a file is always readable
            data = os.read(descriptor, READ_BYTES)
        else:
            try:
                await readable.wait()
            finally:
                loop.remove_reader(descriptor)
            data = os.read(descriptor, READ_BYTES)
        yield data
        if not data:
            return
