"""The options that every verb shares which talks to a server, and the client made of them.

Verbs take a `Connection` as a parameter. A token comes from the environment or a file, never from an argument.
"""

from __future__ import annotations

import asyncio
import os
import ssl as tls
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from unbroken.clock import SystemClock
from unbroken.errors import ConfigurationError, UnreachableError
from unbroken.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from unbroken.client import Client, StatusEvent
    from unbroken.client.transport import Connector

__all__ = ["DEFAULT_CONNECTION", "Connection", "Json", "read_token", "run_async", "within"]

DEFAULT_SERVER: Final = "http://127.0.0.1:4437"
T = TypeVar("T")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Write JSON for programs, one object a line.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Which server, and with which token."""

    server: Annotated[str, Parameter(env_var="UNBROKEN_SERVER", help="The server's address.")] = DEFAULT_SERVER
    token_file: Annotated[
        Path | None,
        Parameter(env_var="UNBROKEN_TOKEN_FILE", help="A file with the token; else UNBROKEN_TOKEN is used."),
    ] = None

    ca_file: Annotated[
        Path | None,
        Parameter(env_var="UNBROKEN_CA_FILE", help="A file with the certificates to trust, instead of the system's."),
    ] = None

    @property
    def ssl(self) -> tls.SSLContext | None:
        """What a server's certificate is checked by, where it is not the system's; `ConfigurationError` for no such file."""
        if self.ca_file is None:
            return None
        try:
            return tls.create_default_context(cafile=str(self.ca_file))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigurationError(f"the certificates cannot be read: {reason}", setting="ca_file") from None

    @property
    def token(self) -> str | None:
        """The token, if there is one; `ConfigurationError` when its file cannot be read or it cannot be a token."""
        return read_token(self.token_file, "UNBROKEN_TOKEN", setting="token_file")

    @asynccontextmanager
    async def client(
        self, *, retries: int = 3, on_status: Callable[[StatusEvent], None] | None = None
    ) -> AsyncIterator[Client]:
        """A client of that server; a request over HTTP is tried `retries` times more."""
        from unbroken.client import Client

        limits = replace(DEFAULT_LIMITS, client_retries_max=retries)
        async with Client(self.server, token=self.token, limits=limits, ssl=self.ssl, on_status=on_status) as client:
            yield client

    def connector(self, limits: Limits, server: str | None = None) -> Connector:
        """The way to that server, or to `server`."""
        from unbroken.client.transport import Address, Connector

        return Connector(Address.parse(server or self.server), limits, SystemClock(), self.token, self.ssl)

    @property
    def limits(self) -> Limits:
        return DEFAULT_LIMITS


DEFAULT_CONNECTION: Final = Connection()


def read_token(file: Path | None, variable: str, *, setting: str) -> str | None:
    """The token in `file`, else in the environment's `variable`; see `Connection.token` for the errors."""
    token = os.environ.get(variable) or None
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the token file cannot be read: {error}", setting=setting) from None
        if not token:
            raise ConfigurationError(f"the token file {file} is empty", setting=setting)
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigurationError("a token has printable ASCII characters only", setting="token")
    return token


async def within(seconds: float, work: Coroutine[object, object, T]) -> T:
    """The outcome of `work`, or `UnreachableError` when the server has not answered by then."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise UnreachableError(f"no answer within {seconds:g} s") from None


def run_async(
    work: Coroutine[object, object, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a verb's coroutine to its end in a loop of its own."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)
