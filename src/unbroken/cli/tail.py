# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb tail: a stream's messages as text, as bytes, or as JSON lines.

It follows over every lost connection until the stream ends, and says how it ended with its exit code. Text never controls
the terminal unless that is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.exits import Exit
from unbroken.cli.output import TerminalFilter, human_bytes, json_line, note, print_json
from unbroken.messages import StreamState, payload_bytes

if TYPE_CHECKING:
    from unbroken.client import Received, StatusEvent
    from unbroken.protocol.frames import StreamView

__all__ = ["tail"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How messages are written."""

    kind: Annotated[
        tuple[str, ...], Parameter(negative="", help="Only messages of this kind; may be given several times.")
    ] = ()
    raw: Annotated[bool, Parameter(negative="", help="Write payloads byte by byte, also what controls a terminal.")] = (
        False
    )
    colours: Annotated[bool, Parameter(negative="", help="Keep the colours of letters, and nothing else.")] = False
    json: Json = False


DEFAULT_FORM: Final = Form()


def tail(
    name: str,
    /,
    *,
    after: str = "start",
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    form: Form = DEFAULT_FORM,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Print a stream's messages. Exits with 0 when the stream completed or goes on, with 3 when it ended in any other way.

    Args:
        name: The stream's name.
        after: Where to begin: start, now, last:N, or a cursor as in 7:120.
        follow: Go on with what comes until the stream ends, over every lost connection.
    """
    printer = _Printer(name, form)

    async def read() -> StreamView:
        position = after
        async with connection.client() as client:
            while True:
                page = await client.read(name, position)
                printer.messages(page.received())
                position = page.cursor
                if page.up_to_date:
                    return page.stream

    async def watch() -> StreamView:
        async with connection.client(on_status=_teller()) as client, client.follow(name, after) as messages:
            try:
                while True:
                    printer.messages(await messages.batch())
            except StopAsyncIteration:
                assert messages.state is not None
                return messages.state

    return printer.end(run_async(watch() if follow else read()))


class _Printer:
    """Writes messages as they come."""

    def __init__(self, stream: str, form: Form) -> None:
        self._stream = stream
        self._form = form
        self._filters: dict[str, TerminalFilter] = {}
        self._mid_line = False

    def messages(self, batch: list[Received]) -> None:
        """Write a batch and flush once."""
        for received in batch:
            if self._form.kind and received.kind not in self._form.kind:
                continue
            if self._form.json:
                print_json(self._fields(received))
            elif self._form.raw:
                sys.stdout.buffer.write(payload_bytes(received.message))
            else:
                self._text(received)
        sys.stdout.flush()

    def end(self, view: StreamView) -> int:
        """Say how the stream stands; the exit code."""
        for text_filter in self._filters.values():
            self._write(text_filter.finish())
        if self._mid_line and sys.stdout.isatty():
            self._write("\n")
        sys.stdout.flush()
        state = StreamState(view.state)
        if self._form.json:
            fields = {"stream": view.stream, "state": view.state, "reason": view.reason, "cursor": view.cursor}
            print_json({"type": "state", **fields})
        elif state.terminal:
            note(f"{view.stream} {view.state} {json_line(view.reason).strip()}")
        return Exit.ENDED_BADLY if state.terminal and state is not StreamState.COMPLETED else Exit.OK

    def _fields(self, received: Received) -> dict[str, object]:
        payload = msgspec.to_builtins(received.message, builtin_types=(bytes, msgspec.Raw))
        place = {"stream": self._stream, "epoch": received.epoch, "seq": received.seq, "cursor": str(received.cursor)}
        return {"type": "message", **place, "kind": received.kind, **payload}

    def _text(self, received: Received) -> None:
        if received.text is not None:
            filtered = self._filters.setdefault(received.kind, TerminalFilter(colours=self._form.colours))
            self._write(filtered.feed(received.text))
            return
        if self._mid_line:
            self._write("\n")
        if received.data is not None:
            self._write(f"[{human_bytes(len(received.data))} of data; --raw writes them]\n")
        else:
            text = payload_bytes(received.message).decode()
            self._write(
                TerminalFilter().feed(f"{text}\n" if received.kind == "message" else f"{received.kind} {text}\n")
            )

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            self._mid_line = not text.removesuffix("\x1b[0m").endswith("\n")


def _teller() -> Callable[[StatusEvent], None]:
    """Says once when the server is away, and once when it is back."""
    away = False

    def tell(event: StatusEvent) -> None:
        nonlocal away
        if event.status.value == "reconnecting" and not away:
            away = True
            note(f"no connection ({event.error}); trying again until there is one")
        elif event.status.value == "live" and away:
            away = False
            note("connected again")

    return tell
