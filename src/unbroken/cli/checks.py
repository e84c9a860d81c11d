"""What `doctor` checks, one function for each subject.

Each gives its findings and raises nothing that it looks for. They only observe.
"""

from __future__ import annotations

import asyncio
import platform
import secrets
import shutil
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Literal

from unbroken.cli.connection import Connection, within
from unbroken.cli.encryption import keyring
from unbroken.cli.offline import database_path, opened
from unbroken.cli.output import human_bytes
from unbroken.client import Client, ConnectionStatus
from unbroken.client.spill import spill_directory, spill_files
from unbroken.clock import SystemClock
from unbroken.errors import UnbrokenError
from unbroken.identity import Principal
from unbroken.limits import MIB
from unbroken.store.base import StreamFilter

__all__ = ["Check", "machine", "served", "stored"]

SQLITE_MIN: Final = (3, 51, 3)
"""Older ones can lose committed data when the write-ahead log is reset."""
ROOM_BYTES_MIN: Final = 100 * MIB
ROOM_BYTES_LOW: Final = 1024 * MIB
CLOCK_SECONDS_MAX: Final = 5.0
ANSWER_SECONDS: Final = 5.0
BUFFER_SECONDS_MAX: Final = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `cure` says what to do about it when it is not ok."""

    name: str
    status: Literal["ok", "warning", "failed"]
    text: str
    cure: str = ""


def machine() -> list[Check]:
    """Python, SQLite, room for spill files, and what earlier runs left there."""
    import apsw

    version = apsw.sqlite_lib_version()
    new = tuple(map(int, version.split(".")[:3])) >= SQLITE_MIN
    wanted = ".".join(map(str, SQLITE_MIN))
    left = spill_files(spill_directory())
    found = [
        Check("python", "ok", platform.python_version()),
        Check("sqlite", "ok" if new else "failed", f"{version} (at least {wanted})", "Upgrade the package apsw."),
        _room("spill room", spill_directory()),
    ]
    if left:
        size = sum(path.stat().st_size for path in left)
        text = f"{len(left)} files of earlier runs wait, {human_bytes(size)}"
        found.append(Check("spill files", "warning", text, "Run `unbroken deliver`."))
    return found


async def stored(url: str, key_file: Path | None = None) -> list[Check]:
    """An SQLite file: room beside it, whether it opens, and what it holds."""
    try:
        path = await asyncio.to_thread(database_path, url)
        found = [_room("store room", path.parent)]
        async with opened(url, keyring(key_file)) as streams:
            page = await streams.list(Principal(), StreamFilter(), limit=1, page=None)
            newest = f"newest stream {page.items[0].name}" if page.items else "no streams"
        size = human_bytes(path.stat().st_size)
        return [*found, Check("store", "ok", f"{path} opens: {size}, {newest}")]
    except UnbrokenError as error:
        return [Check("store", "failed", f"error[{error.code}]: {error.message}", error.cure)]


async def served(connection: Connection) -> list[Check]:
    """A server: whether it answers, its clock, both kinds of connection, and whether something on the way buffers."""
    found, reached = await _reach(connection)
    if not reached:
        return found
    try:
        async with connection.client(retries=0) as client:
            found.append(await _websocket(client))
            if found[-1].status == "ok":
                found.append(await _buffering(connection, client))
    except UnbrokenError as error:
        found.append(Check("server", "failed", f"error[{error.code}]: {error.message}", error.cure))
    return found


async def _reach(connection: Connection) -> tuple[list[Check], bool]:
    import httpx2

    headers = {} if connection.token is None else {"Authorization": f"Bearer {connection.token}"}
    async with httpx2.AsyncClient(
        base_url=connection.server, headers=headers, timeout=ANSWER_SECONDS, verify=connection.ssl or True
    ) as http:
        try:
            alive = await http.get("/livez")
            ready = await http.get("/readyz")
        except (httpx2.TransportError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            cure = "Start it (`unbroken serve`), or name the right one with --server or UNBROKEN_SERVER."
            return [Check("server", "failed", f"{connection.server} does not answer: {error}", cure)], False
    if not alive.is_success:
        cure = "Is this the address of an Unbroken server, and is the prefix right?"
        return [Check("server", "failed", f"{connection.server} answers HTTP {alive.status_code}", cure)], False
    found = [Check("server", "ok", f"{connection.server} answers")]
    if not ready.is_success:
        found.append(Check("ready", "failed", ready.text[:500], "See the server's log."))
    else:
        found.append(Check("ready", "ok", "its store answers"))
    found.extend(_clock(ready.headers.get("Date")))
    return found, True


def _clock(date: str | None) -> list[Check]:
    """Whether the server's clock and ours agree; times of messages are for display, but people compare them."""
    if date is None:
        return []
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return []
    apart = abs(theirs - SystemClock().now_ms() / 1000)
    if apart <= CLOCK_SECONDS_MAX:
        return [Check("clock", "ok", f"within {CLOCK_SECONDS_MAX:g} s of the server's")]
    return [Check("clock", "warning", f"{apart:.0f} s apart from the server's", "Synchronise both with NTP.")]


async def _websocket(client: Client) -> Check:
    wanted = (ConnectionStatus.LIVE, ConnectionStatus.REFUSED)
    try:
        status = await within(ANSWER_SECONDS, client.wait_status(*wanted))
    except UnbrokenError:
        cure = "A proxy on the way must pass the Upgrade and Connection headers."
        return Check("websocket", "failed", "the server answers HTTP, but no WebSocket opens", cure)
    if status is ConnectionStatus.REFUSED:
        return Check("websocket", "failed", "refused", "Give the token with UNBROKEN_TOKEN or --token-file.")
    return Check("websocket", "ok", "opens")


async def _buffering(connection: Connection, client: Client) -> Check:
    """Whether a message arrives over SSE while the response goes on: a proxy that buffers holds it back."""
    name = f"doctor/{secrets.token_hex(6)}"
    await within(ANSWER_SECONDS, client.create(name, ttl_seconds=60))
    try:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with asyncio.timeout(BUFFER_SECONDS_MAX):
            await _first_event(connection, client, name)
        return Check("streaming", "ok", f"a message arrives after {(loop.time() - begun) * 1000:.0f} ms, unbuffered")
    except TimeoutError:
        cure = "Turn off response buffering and compression for text/event-stream in the proxy on the way."
        return Check("streaming", "failed", f"no message within {BUFFER_SECONDS_MAX:g} s: something buffers", cure)
    finally:
        await client.delete(name)


async def _first_event(connection: Connection, client: Client, name: str) -> None:
    import httpx2

    headers = {"Accept": "text/event-stream"}
    if connection.token is not None:
        headers["Authorization"] = f"Bearer {connection.token}"
    async with (
        httpx2.AsyncClient(
            base_url=connection.server, headers=headers, timeout=ANSWER_SECONDS, verify=connection.ssl or True
        ) as http,
        http.stream("GET", f"/v1/messages/{name}", params={"live": "sse"}) as response,
    ):
        await client.append(name, "doctor")
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                return


def _room(name: str, directory: Path) -> Check:
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    status: Literal["ok", "warning", "failed"] = "ok"
    if free < ROOM_BYTES_LOW:
        status = "failed" if free < ROOM_BYTES_MIN else "warning"
    return Check(name, status, f"{human_bytes(free)} free at {directory}", "Free disk space.")
