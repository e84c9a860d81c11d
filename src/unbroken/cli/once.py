"""`unbroken run --key`: the same piece of work is begun once, whoever asks for it and however often.

The verb claims its stream before the command is started, and shows the run that exists when it comes too late. Only here
does a run need its server from the beginning.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from dataclasses import replace

import msgspec

from unbroken.cli.connection import Connection, run_async
from unbroken.cli.output import clean, note
from unbroken.cli.tail import Form, tail
from unbroken.client.delivery import metadata_of, run_of
from unbroken.client.http import HttpFace, place
from unbroken.client.spill import SpillHeader
from unbroken.errors import UnbrokenError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import StreamState
from unbroken.protocol.frames import StreamView

__all__ = ["attach", "claim", "keyed_name", "not_started"]

RETRIES = 3


class _Reason(msgspec.Struct, frozen=True):
    exit_code: int | None = None
    signal: str = ""


def keyed_name(program: str, key: str) -> str:
    """The name of the stream of a run with that key, the same wherever it is asked for."""
    return f"run/{program}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def claim(connection: Connection, header: SpillHeader, limits: Limits) -> StreamView | None:
    """Take the stream for this run; the stream of an earlier run when it has been taken. Durable when it returns.

    Raises what the server refuses, `UnreachableError` when it does not answer, `AlreadyExistsError` when the name belongs
    to something else.
    """

    async def ask() -> StreamView:
        face = _face(connection, limits)
        body: dict[str, object] = {
            "kind": "run",
            "metadata": metadata_of(header),
            "lease": {"id": header.run},
            "lease_seconds": DEFAULT_LIMITS.lease_seconds,
        }
        if header.session is not None:
            body["session"] = header.session
        try:
            return await face.send("PUT", place("streams", header.stream), StreamView, body)
        finally:
            await face.aclose()

    view = run_async(ask())
    return None if run_of(view) == header.run else view


async def not_started(
    connection: Connection, header: SpillHeader, limits: Limits, reason: dict[str, int | str]
) -> None:
    """End the claimed stream of a command that could not be executed; without a server its lease ends it."""
    face = _face(connection, limits)
    try:
        body = {"state": StreamState.FAILED.value, "reason": {"error": "not started", **reason}}
        await face.send("POST", place("close", header.stream), StreamView, body)
    except UnbrokenError as error:
        note(f"error[{error.code}]: {error}; the stream {clean(header.stream)} ends when its lease runs out")
    finally:
        await face.aclose()


def _face(connection: Connection, limits: Limits) -> HttpFace:
    patience = replace(limits, client_retries_max=RETRIES)
    return HttpFace(connection.connector(patience))


def attach(view: StreamView, connection: Connection) -> int:
    """Show what the run of `view` has written and writes, until it ends; its exit code, as far as it has one."""
    note(f"this run exists: {clean(view.stream)} ({view.state}); it is shown here, and nothing is started")
    code = tail(view.stream, follow=True, form=Form(raw=not sys.stdout.isatty(), colours=True), connection=connection)

    async def ask() -> StreamView:
        async with connection.client() as client:
            return await client.state(view.stream)

    try:
        reason = msgspec.json.decode(run_async(ask()).reason, type=_Reason)
    except msgspec.DecodeError:
        return code
    if reason.exit_code is not None:
        return reason.exit_code
    return 128 + signal.Signals[reason.signal] if reason.signal in signal.Signals.__members__ else code
