"""One configured server: sessions for calls, its list of tools, and what keeps us from asking a dead one again and again.

A call over HTTP has a session of its own over one shared HTTP client; a process is lent to it. What a server said of itself
is remembered and asked anew after a failure. The SDK is imported here, in a thread, when the first session is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unbroken.errors import ConfigurationError
from unbroken.limits import Limits
from unbroken.mcp.config import HttpServer, ServerConfig, StdioServer
from unbroken.mcp.credentials import Credentials, HeadersHook, helper_of
from unbroken.mcp.failures import Failure, FailureClass
from unbroken.mcp.pool import Lease, Place, Pool
from unbroken.mcp.redaction import Redaction
from unbroken.mcp.tools import Tool, tools_of

if TYPE_CHECKING:
    import httpx2

    from unbroken.mcp.sdk import Era, Listener, Session

__all__ = ["McpClient"]


class McpClient:
    """How one server is reached. Belongs to one event loop; `close` lets go of everything."""

    def __init__(self, config: ServerConfig, limits: Limits, headers: HeadersHook | None = None) -> None:
        self.config = config
        self.limits = limits = config.options.applied(limits)
        self.redact = Redaction(config)
        self._credentials = _credentials(config, self.limits, headers, self.redact)
        self._places = asyncio.Semaphore(config.options.max_calls)
        self._http: httpx2.AsyncClient | None = None
        self._pool: Pool[Session] | None = None
        self._era: Era = None
        self._era_known = False
        self._tools: dict[str, Tool] | None = None
        self._asking = asyncio.Lock()
        self._breaker = _Breaker(limits)
        self._closed = False

    def place(self) -> Place:
        """One of `max_calls` places, which a call holds."""
        return Place(self._places)

    # --- sessions ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, listener: Listener | None = None) -> AsyncIterator[Session]:
        """A connected session; `Failure` with `executed` False when there is none to be had.

        Left by an exception, a session that nobody shares is not used again.
        """
        self._breaker.check()
        self._credentials.begin()
        sdk = await _sdk()
        started = False
        try:
            async with self._leased(sdk) as lease:
                started = True
                self._remember(lease.value)
                listeners = lease.value.listeners
                if listener is not None:
                    listeners.append(listener)
                try:
                    yield lease.value
                    self._breaker.success()
                except BaseException as error:
                    if self._exclusive or (isinstance(error, Failure) and error.http_status == 404):
                        lease.discard()  # the session, or what the server knows of it, is of no use any more
                    raise
                finally:
                    if listener is not None:
                        listeners.remove(listener)
        except Failure as failure:
            if not started:
                failure.executed = False
            if not started or (failure.kind is FailureClass.TRANSPORT and not failure.executed):
                self._breaker.failure()
            if not failure.answered or failure.kind is FailureClass.PROTOCOL_MISMATCH or failure.http_status == 404:
                self.forget()
            raise

    @property
    def _exclusive(self) -> bool:
        """Whether a session has one call at one time."""
        options = self.config.options
        return options.shared == 1 if isinstance(self.config.reach, StdioServer) else options.session == "call"

    def _leased(self, sdk: Any) -> AbstractAsyncContextManager[Lease[Session]]:
        reach, options = self.config.reach, self.config.options
        if isinstance(reach, HttpServer):
            if options.session == "call":
                return self._own(sdk)
            return self._pooled(lambda _: self._over_http(sdk), size=1, shared=options.max_calls).lease()
        size = 1 if options.session == "server" else options.max_processes
        return self._pooled(
            lambda on_end: sdk.stdio_session(self.config, self.limits, self.redact, on_end),
            size=size,
            shared=options.shared,
        ).lease()

    @asynccontextmanager
    async def _own(self, sdk: Any) -> AsyncIterator[Lease[Session]]:
        async with self._over_http(sdk) as session:
            yield Lease(session, lambda: None)  # it is closed anyway

    def _over_http(self, sdk: Any) -> AbstractAsyncContextManager[Session]:
        if self._http is None:
            assert isinstance(self.config.reach, HttpServer)
            self._http = import_module("unbroken.mcp.guard").guarded_client(
                self.config.reach, self.limits, self._credentials
            )
        opened: AbstractAsyncContextManager[Session] = sdk.http_session(
            self._http, self.limits, self.redact, self._era, known=self._era_known
        )
        return opened

    def _pooled(
        self, open_: Callable[[Callable[[], None]], AbstractAsyncContextManager[Session]], *, size: int, shared: int
    ) -> Pool[Session]:
        if self._pool is None:
            warm = None if self.config.options.session == "server" else self.limits.mcp_warm_seconds
            self._pool = Pool(open_, size=size, shared=shared, warm_seconds=warm)
        return self._pool

    def _remember(self, session: Session) -> None:
        if session.transport == "http" and not self._era_known:
            self._era, self._era_known = session.era, True

    def forget(self) -> None:
        """What is known of the server may be wrong: ask it again next time."""
        self._era, self._era_known = None, False
        self._tools = None

    # --- tools ---------------------------------------------------------------------------------------------------------

    @property
    def known_tools(self) -> dict[str, Tool] | None:
        """The tools as they were last listed; None when they are to be asked for."""
        return self._tools

    async def tools(self, session: Session | None = None) -> dict[str, Tool]:
        """The server's tools, asked for over `session` or one of its own unless they are known. Raises `Failure`."""
        async with self._asking:
            if self._tools is None and session is not None:
                self._tools = tools_of(await session.list_tools())
            elif self._tools is None:
                async with self.session() as own:
                    self._tools = tools_of(await own.list_tools())
            return self._tools

    async def fresh_tools(self) -> dict[str, Tool]:
        """As `tools`, asked for now; what was known stays until then."""
        async with self.session() as session:
            found = self._tools = tools_of(await session.list_tools())
        return found

    async def close(self) -> None:
        """Close sessions, processes and connections; idempotent."""
        pool, self._pool = self._pool, None
        http, self._http = self._http, None
        if pool is not None:
            await pool.close()
        if http is not None:
            await http.aclose()


def _credentials(config: ServerConfig, limits: Limits, headers: HeadersHook | None, redact: Redaction) -> Credentials:
    reach = config.reach
    if not isinstance(reach, HttpServer):
        return Credentials({}, None, redact)
    return Credentials(reach.headers, headers or helper_of(config.name, reach, limits), redact)


class _Breaker:
    """After some failures to start in a row a server is left alone for a while."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failures = 0
        self._open_until = 0.0

    def check(self) -> None:
        """Raise `Failure` while the server is left alone."""
        remaining = self._open_until - asyncio.get_running_loop().time()
        if remaining > 0:
            raise Failure(
                kind=FailureClass.TRANSPORT,
                message=f"the server could not be reached {self._failures} times in a row and is left alone for a while",
                executed=False,
                retry_after=round(remaining, 1),
                exception="CircuitOpen",
            )

    def success(self) -> None:
        self._failures = 0

    def failure(self) -> None:
        self._failures += 1
        if self._failures >= self._limits.mcp_start_failures_max:
            self._open_until = asyncio.get_running_loop().time() + self._limits.mcp_open_seconds


async def _sdk() -> Any:
    """The module over the SDK, imported in a thread: it takes a second."""
    try:
        return await asyncio.to_thread(import_module, "unbroken.mcp.sdk")
    except ImportError as error:
        if (error.name or "").split(".")[0] in {"mcp", "mcp_types"}:
            raise ConfigurationError("MCP servers need the extra: pip install 'unbroken[mcp]'") from None
        raise
