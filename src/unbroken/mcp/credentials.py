"""The headers that one HTTP server is sent: the configured ones, and over them those that a helper of the operator gives.

The guard asks for them before each request, and for other ones when the server has refused them. A helper is asked at the
first request and once more for each call whose headers are refused, never more often, and all that it gives is hidden.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from unbroken.limits import Limits
from unbroken.mcp.config import HttpServer, sendable
from unbroken.mcp.process import close_pipes
from unbroken.mcp.redaction import Redaction
from unbroken.messages import UNREADABLE
from unbroken.runs.environment import without_settings
from unbroken.runs.lifeline import tied

__all__ = ["Credentials", "HeadersHook", "HelperError", "SentHeaders", "helper_of"]

HeadersHook = Callable[[], Awaitable[Mapping[str, str]]]
"""Gives headers, each time others if it can."""
OWN_HEADERS: Final = frozenset({"accept", "accept-encoding", "content-type", "content-length", "host", "connection"})
READ_BYTES: Final = 64 * 1024


class HelperError(Exception):
    """The helper gave no headers; the message says why, without anything that it said."""


@dataclass(frozen=True, slots=True)
class SentHeaders:
    """What a request is sent with. `generation` tells headers from those that were given before or after."""

    generation: int
    values: Mapping[str, str]


class Credentials:
    """The headers of one server. Belongs to one event loop."""

    def __init__(self, configured: Mapping[str, str], helper: HeadersHook | None, redact: Redaction) -> None:
        self._configured = _usable(configured)
        self._helper = helper
        self._redact = redact
        self._given: dict[str, str] = {}
        self._generation = 0
        self._asked = False
        self._error: HelperError | None = None
        self._spent = False
        self._asking = asyncio.Lock()

    def begin(self) -> None:
        """A call begins: for it the helper may be asked again."""
        self._spent = False
        self._error = None

    async def current(self) -> SentHeaders:
        """The headers for a request. Raises `HelperError`, for one call the same one."""
        if self._helper is not None:
            async with self._asking:
                if self._error is not None:
                    raise self._error
                if not self._asked:
                    await self._ask(self._helper)
        return SentHeaders(self._generation, {**self._configured, **self._given})

    def accepted(self) -> None:
        """The server took the newest headers: when it refuses them later, the helper may be asked again."""
        self._spent = False

    async def renewed(self, refused: SentHeaders) -> bool:
        """Whether there are headers other than `refused` to try. Raises `HelperError`."""
        if self._helper is None:
            return False
        async with self._asking:
            if refused.generation != self._generation:
                return True  # another request has renewed them meanwhile
            if self._spent:
                return False
            self._spent = True
            await self._ask(self._helper)
            return refused.generation != self._generation

    async def _ask(self, helper: HeadersHook) -> None:
        try:
            given = _usable(await helper())
        except HelperError as error:
            self._error = error
            raise
        except Exception as error:  # noqa: BLE001 - the application's own function
            self._error = HelperError(f"the headers cannot be had ({type(error).__name__})")
            raise self._error from None
        self._redact.learn_headers(given)
        if given != self._given or not self._asked:
            self._generation += 1
        self._given, self._asked = given, True


def _usable(headers: Mapping[str, str]) -> dict[str, str]:
    """Without those that belong to the protocol."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lower.items() if name not in OWN_HEADERS and not name.startswith("mcp-")}


# --- a program ---------------------------------------------------------------------------------------------------------


def helper_of(name: str, server: HttpServer, limits: Limits) -> HeadersHook | None:
    """What asks the program that the server's `headersHelper` names; None when there is none."""
    if not server.helper:
        return None
    environment = {**without_settings(os.environ), "MCP_SERVER_NAME": name, "MCP_SERVER_URL": server.url}

    async def ask() -> Mapping[str, str]:
        return _headers(await _output(server.helper, environment, limits))

    return ask


def _headers(output: bytes) -> dict[str, str]:
    try:
        found = msgspec.json.decode(output, type=dict[str, str])
    except UNREADABLE:
        raise HelperError("the headers helper did not print a JSON object of texts") from None
    if not all(sendable(name, value) for name, value in found.items()):
        raise HelperError("the headers helper printed a header that HTTP does not allow")
    return found


async def _output(command: tuple[str, ...], environment: Mapping[str, str], limits: Limits) -> bytes:
    """What the program prints, within its bounds; nothing is left of it afterwards."""
    try:
        process = await asyncio.create_subprocess_exec(
            *await tied(command, environment=environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may hold what the helper could not print
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise HelperError(f"the headers helper cannot be started: {error.strerror or type(error).__name__}") from None
    try:
        async with asyncio.timeout(limits.mcp_headers_seconds):
            output = await _read(process, limits.mcp_headers_bytes_max)
            code = await process.wait()
    except TimeoutError:
        raise HelperError(f"the headers helper took more than {limits.mcp_headers_seconds:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        close_pipes(process)
        await process.wait()
    if code != 0:
        raise HelperError(f"the headers helper failed (exit code {code})")
    return output


async def _read(process: asyncio.subprocess.Process, most: int) -> bytes:
    assert process.stdout is not None
    output = bytearray()
    while data := await process.stdout.read(READ_BYTES):
        output += data
        if len(output) > most:
            raise HelperError(f"the headers helper printed more than {most} bytes")
    return bytes(output)
