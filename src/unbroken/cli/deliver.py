# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb deliver: brings to the server what earlier runs had to leave in files.

`run` tries the same in the background. A file is delivered by one process at a time, and removed when all of it is durable at
the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from unbroken.cli.connection import DEFAULT_CONNECTION, DEFAULT_SERVER, Connection, Json, run_async
from unbroken.cli.exits import Exit
from unbroken.cli.output import clean, human_bytes, note, print_json
from unbroken.client.delivery import Delivery
from unbroken.client.link import Link
from unbroken.client.outbox import Outbox
from unbroken.client.spill import spill_directory, spill_files, spill_lock
from unbroken.errors import CorruptError, UnbrokenError, UnreachableError
from unbroken.limits import Limits

__all__ = ["deliver", "deliver_left", "first_error"]


def deliver(*, wait: float = 30.0, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> int:
    """Deliver what earlier runs could not. Each file goes to the server of its run, unless --server names another.

    Args:
        wait: Seconds without any progress after which a file is left for another time.
    """
    files = spill_files(spill_directory())
    if not files and not json:
        sys.stdout.write("nothing is left to deliver\n")
    left: list[UnbrokenError] = []
    for path in files:
        try:
            run_async(_deliver_file(path, connection, wait=wait, as_json=json))
        except UnbrokenError as error:
            note(f"error[{error.code}]: {path.name}: {error.message}")
            left.append(error)
    if not left:
        return Exit.OK
    note("cure: start the server, then `unbroken deliver` again; what is there already is not doubled")
    return Exit.TAMPERED if all(isinstance(error, CorruptError) for error in left) else Exit.TEMPORARY


async def deliver_left(link: Link, server: str, limits: Limits) -> None:
    """Deliver the files of earlier runs that were meant for this server, silently; for a background task."""
    for path in spill_files(spill_directory()):
        with spill_lock(path) as held, contextlib.suppress(UnbrokenError, OSError):
            if held:
                await _deliver_locked(path, link, limits, only=server)


async def _deliver_file(path: Path, connection: Connection, *, wait: float, as_json: bool) -> None:
    limits = connection.limits
    with spill_lock(path) as held:
        if not held:
            return  # a living run's, which delivers it itself
        try:
            outbox = Outbox.recover(path, limits)
        except FileNotFoundError:
            return  # delivered meanwhile by another
        server = outbox.header.server if connection.server == DEFAULT_SERVER else connection.server
        size = outbox.waiting_bytes
        link = Link(connection.connector(limits, server), lambda _: None)
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(link.run())
                await _watched(outbox, link, limits, wait=wait)
                link.stop()
                await running
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            stream = outbox.target.stream
            outbox.close()
    if as_json:
        print_json({"run": outbox.header.run, "stream": stream, "bytes": size, "delivered": True})
    else:
        sys.stdout.write(f"{clean(stream)}: {human_bytes(size)} delivered\n")


async def _watched(outbox: Outbox, link: Link, limits: Limits, *, wait: float) -> None:
    """Deliver, with a progress bar on a terminal; `UnreachableError` after `wait` seconds without progress."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    delivery = Delivery(link, outbox, limits, lease_seconds=None, notice=note)
    loop = asyncio.get_running_loop()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task(escape(clean(outbox.header.stream)), total=outbox.waiting_bytes)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(delivery.run())
            before, since = outbox.waiting_bytes, loop.time()
            while not task.done():
                await asyncio.wait([task], timeout=0.2)
                left = outbox.waiting_bytes
                progress.update(bar, completed=(progress.tasks[0].total or 0) - left)
                if left != before:
                    before, since = left, loop.time()
                elif loop.time() - since > wait and not task.done():
                    raise UnreachableError(f"no answer within {wait:g} s")


async def _deliver_locked(path: Path, link: Link, limits: Limits, *, only: str) -> None:
    outbox = Outbox.recover(path, limits)
    try:
        if outbox.header.server == only:
            await Delivery(link, outbox, limits, lease_seconds=None, notice=_silent).run()
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    finally:
        outbox.close()


def _silent(text: str) -> None:
    """A notice about another run's output is none of this one's business."""


def first_error(failure: BaseException) -> BaseException:
    """The error behind those that task groups have bundled."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
