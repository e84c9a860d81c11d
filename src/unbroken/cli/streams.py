# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verbs about streams as a whole: ls, show, cancel, close, delete.

Each asks the server once and prints the answer. None of them prompts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import Parameter

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async, within
from unbroken.cli.exits import Exit
from unbroken.cli.output import clean, coloured, human_bytes, human_time, note, print_json, print_table
from unbroken.errors import InvalidError
from unbroken.protocol.frames import StreamView

__all__ = ["Which", "by_whom", "cancel", "close", "delete", "ls", "print_view", "show"]

ANSWER_SECONDS = 15.0
PAGE_ITEMS = 100


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which streams are listed."""

    prefix: Annotated[str | None, Parameter(help="Only names that begin so.")] = None
    session: Annotated[str | None, Parameter(help="Only streams of this session.")] = None
    active: Annotated[
        bool | None,
        Parameter(negative="--ended", help="Only streams that have not ended, or only those that have."),
    ] = None
    runs: Annotated[
        bool | None,
        Parameter(negative="--no-runs", help="Only runs, which the server executes, or only other streams."),
    ] = None


EVERY: Final = Which()


def ls(
    *,
    which: Which = EVERY,
    limit: Annotated[int, Parameter(name=["--limit", "-n"])] = 50,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """List streams, newest first.

    Args:
        limit: At most so many.
    """

    async def work() -> int:
        rows: list[list[str]] = []
        async with connection.client() as client:
            page: str | None = None
            left = limit
            while left > 0:
                found = await client.list(
                    prefix=which.prefix,
                    session=which.session,
                    active=which.active,
                    run=which.runs,
                    limit=min(left, PAGE_ITEMS),
                    page=page,
                )
                for view in found.streams[:left]:
                    if json:
                        print_json(view)
                    else:
                        rows.append(_row(view))
                left -= len(found.streams)
                page = found.next
                if page is None:
                    break
        if not json:
            print_table(["STREAM", "STATE", "MESSAGES", "SIZE", "UPDATED (UTC)", "SESSION"], rows, colour=1)
            if page is not None:
                note(f"there are more; use --limit, which is {limit}")
        return Exit.OK

    return run_async(work())


def show(name: str, /, *, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> int:
    """Show the state of one stream.

    Args:
        name: The stream's name.
    """

    async def work() -> int:
        async with connection.client() as client:
            print_view(await client.state(name), as_json=json)
        return Exit.OK

    return run_async(work())


def cancel(name: str, /, *, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> int:
    """Ask a stream's producer to stop; without a producer the stream ends as cancelled at once.

    Args:
        name: The stream's name.
    """

    async def work() -> int:
        async with connection.client() as client:
            print_view(await within(ANSWER_SECONDS, client.cancel(name)), as_json=json)
        return Exit.OK

    return run_async(work())


def close(
    name: str,
    /,
    *,
    state: Literal["completed", "failed", "cancelled", "timed_out", "interrupted"] = "completed",
    reason: str | None = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """End a stream; it then stays as it is.

    Args:
        name: The stream's name.
        state: How it ended.
        reason: A JSON object that says why, as in '{"exit_code": 2}'.
    """
    why: dict[str, str | int | float | bool | None] | None = None
    if reason is not None:
        try:
            why = msgspec.json.decode(reason, type=dict[str, str | int | float | bool | None])
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise InvalidError(f"the reason is not a JSON object: {error}", field="reason") from None

    async def work() -> int:
        async with connection.client() as client:
            print_view(await within(ANSWER_SECONDS, client.close(name, state, why)), as_json=json)
        return Exit.OK

    return run_async(work())


def delete(
    name: str,
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Delete a stream and its messages. It does not ask first.

    Args:
        name: The stream's name.
        dry_run: Show what would be deleted, and delete nothing.
    """

    async def work() -> int:
        async with connection.client() as client:
            view = await client.state(name)
            if not dry_run:
                await client.delete(name)
        if json:
            print_json({"stream": view.stream, "epoch": view.epoch, "messages": view.head, "deleted": not dry_run})
        else:
            said = "would be deleted" if dry_run else "deleted"
            sys.stdout.write(f"{clean(view.stream)} {said}: {view.head} messages\n")
        return Exit.OK

    return run_async(work())


def by_whom(name: str | None) -> str:
    """Who did it, for the end of a sentence; nothing where that is not known."""
    return f" by {name}" if name else ""


def _row(view: StreamView) -> list[str]:
    count = f"{max(view.head - view.first + 1, 0):,}"
    return [view.stream, view.state, count, human_bytes(view.bytes), human_time(view.updated), view.session or "-"]


def print_view(view: StreamView, *, as_json: bool) -> None:
    """A stream's state, for people or for programs."""
    if as_json:
        print_json(view)
        return
    asked = f" (asked to stop{_line(by_whom(view.cancel_requested_by))})" if view.cancel_requested else ""
    rows = {
        "stream": view.stream,
        "reason": bytes(view.reason).decode(),
        "messages": f"{view.first} to {view.head}" if view.head >= view.first else "none",
        "size": human_bytes(view.bytes),
        "kind": view.kind,
        "session": view.session or "-",
        "producer": view.producer or "-",
        "created": human_time(view.created),
        "updated": human_time(view.updated),
        "ended": human_time(view.ended),
        "metadata": bytes(view.metadata).decode(),
        "cursor": view.cursor,
        "hash": view.hash,
    }
    sys.stdout.write(f"{'stream':10}{_line(rows.pop('stream'))}\n")
    sys.stdout.write(f"{'state':10}{coloured(_line(view.state))}{asked}\n")
    for label, value in rows.items():
        sys.stdout.write(f"{label:10}{_line(value)}\n")


def _line(text: str) -> str:
    """What a server said, as a part of one line."""
    return clean(text).replace("\n", " ")
