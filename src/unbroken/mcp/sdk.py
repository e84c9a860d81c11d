"""The official SDK, held at arm's length: sessions over guarded transports, and its exceptions as `Failure`s.

With `stdio` and `incoming` it is what imports `mcp`; `client` imports it when it is first needed. A session sends raw
requests and gives raw results: nothing that a server answered is lost because the SDK does not like it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, Final, Protocol

import httpx2
import mcp_types as types
import msgspec
from mcp import Client
from mcp.client.extension import advertise
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

import unbroken
from unbroken.limits import Limits
from unbroken.mcp.config import ServerConfig, StdioServer
from unbroken.mcp.failures import FACTS_KEY, Facts, Failure, FailureClass
from unbroken.mcp.guard import PLACEHOLDER_URL
from unbroken.mcp.incoming import cleaned
from unbroken.mcp.process import Child, started
from unbroken.mcp.redaction import Redaction
from unbroken.mcp.sdk_logs import keep_quiet_about
from unbroken.mcp.stdio import Lines

__all__ = ["Era", "Listener", "Session", "failure_of", "http_session", "stdio_session"]

logger = logging.getLogger(__name__)

TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"
LOST: Final = ("SSE stream ended", "Connection closed")
"""How the SDK's own errors for a lost connection begin; their code is one that servers use for errors of their own."""
EXIT_SECONDS: Final = 0.5
OFFERED: Final = frozenset({"elicitation/create", "ping"})
"""What a server may ask of us."""
_OBJECT: Final[TypeAdapter[Any]] = TypeAdapter(dict[str, Any])
Object = dict[str, object]
Era = types.DiscoverResult | None
"""What a server said of itself at first; None for one that wants the old handshake."""


class Listener(Protocol):
    """Who hears what a server says during a call. Nothing but `elicit` waits."""

    def log(self, level: str, logger: str, data: object) -> None: ...

    def missed(self) -> None:
        """A log message that may have been of this call, or of another one in the same session."""
        ...

    def refused(self, method: str) -> None:
        """The server asked for something that this client does not offer, and was told so."""
        ...

    async def elicit(self, params: Object) -> Object:
        """The answer to a question of the old protocol, as an elicitation result."""
        ...


class _NamedRequest(types.Request[dict[str, Any], str]):
    """A request of any method; its task is named in a header, for proxies."""

    name_param: ClassVar[str | None] = "taskId"


class Session:
    """One connection to a server. `listeners` are the calls that use it now.

    What a server says in no call's answer belongs to the one call there is. Of several it might be anybody's, and calls may
    have different owners: then nobody gets it.
    """

    def __init__(self, transport: str, limits: Limits, redact: Redaction) -> None:
        self.transport = transport
        self.listeners: list[Listener] = []
        self.child: Child | None = None
        self.lines: Lines | None = None
        self._limits = limits
        self._redact = redact
        keep_quiet_about(redact)
        self._client: Client | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing can be asked any more, as far as we know."""
        return self.lines is not None and self.lines.ended

    @property
    def protocol_version(self) -> str:
        return self._connected.protocol_version

    @property
    def server(self) -> Object:
        """How the server calls itself."""
        info = self._connected.server_info
        return {} if info is None else {"name": info.name[:200], "version": info.version[:100]}

    @property
    def era(self) -> Era:
        """What spares the next session the first question."""
        return self._connected.session.discover_result

    @property
    def _connected(self) -> Client:
        assert self._client is not None
        return self._client

    async def request(self, method: str, params: Object, on_progress: Callable[[Object], None] | None = None) -> Object:
        """The result of one request. Cancelling it tells the server. Raises `Failure`."""

        async def told(progress: float, total: float | None, message: str | None) -> None:
            assert on_progress is not None
            on_progress({"done": progress, "total": total, "message": message or ""})

        kind = _NamedRequest if "taskId" in params else types.Request[dict[str, Any], str]
        seconds = None if method == "tools/call" else self._limits.mcp_connect_seconds
        try:
            async with asyncio.timeout(seconds):
                result: Object = await self._connected.session.send_request(
                    kind(method=method, params=dict(params)),
                    _OBJECT,
                    progress_callback=None if on_progress is None else told,
                )
                return result
        except (MCPError, RuntimeError, ValueError, TimeoutError) as error:
            raise await self._explained(failure_of(error)) from None

    async def list_tools(self) -> list[Object]:
        """All tools, at most `mcp_tools_max` on `mcp_tool_pages_max` pages; the SDK learns their headers."""
        try:
            async with asyncio.timeout(self._limits.mcp_start_seconds):
                return await self._all_tools()
        except (MCPError, ValidationError, RuntimeError, TimeoutError) as error:
            raise await self._explained(failure_of(error)) from None

    async def _all_tools(self) -> list[Object]:
        found: list[Object] = []
        cursor: str | None = None
        for _ in range(self._limits.mcp_tool_pages_max):
            params = None if cursor is None else types.PaginatedRequestParams(cursor=cursor)
            page = await self._connected.session.list_tools(params=params)
            found += [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None or len(found) >= self._limits.mcp_tools_max:
                break
        return found[: self._limits.mcp_tools_max]

    async def _explained(self, failure: Failure) -> Failure:
        """With what the process said at its end, where there is one."""
        if self.child is None or failure.kind not in {FailureClass.TRANSPORT, FailureClass.SPAWN}:
            return failure
        await self.child.settle(EXIT_SECONDS)
        broken = None if self.lines is None else self.lines.broken
        if broken is FailureClass.TOO_LARGE:
            failure.message = f"the server wrote a line of more than {self._limits.mcp_line_bytes_max} bytes"
        elif broken is FailureClass.BAD_RESPONSE:
            failure.message = "the server's answer is not JSON-RPC"
        elif (code := self.child.exit_code) is not None:
            failure.message = f"the server's process ended ({f'exit code {code}' if code >= 0 else f'signal {-code}'})"
        failure.kind = broken or failure.kind
        failure.stderr = self.child.stderr_tail()
        return failure

    # --- callbacks of the SDK ------------------------------------------------------------------------------------------

    async def _log(self, params: types.LoggingMessageNotificationParams) -> None:
        if len(self.listeners) == 1:
            self.listeners[0].log(params.level, params.logger or "", params.data)
            return
        for listener in self.listeners:
            listener.missed()

    async def _elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        if len(self.listeners) != 1:
            return types.ErrorData(code=types.INVALID_REQUEST, message="it is not known which call asks")
        asked = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        return types.ElicitResult.model_validate(await self.listeners[0].elicit(asked))

    def _asked(self, method: str) -> None:
        """The SDK refuses what we did not say that we can do; the calls that it may be about hear of it."""
        if method not in OFFERED:
            for listener in self.listeners:
                listener.refused(method)

    @asynccontextmanager
    async def connected(self, transport: Any, era: Era, *, known: bool) -> AsyncIterator[Session]:
        """Shake hands within `mcp_start_seconds`; `Failure` when that does not succeed."""
        mode = "auto" if not known else "legacy" if era is None else self._version_of(era)
        client = Client(
            cleaned(transport, self._redact, self._asked),
            mode=mode,
            prior_discover=era,
            logging_callback=self._log,
            log_level="debug",
            elicitation_callback=self._elicit,
            client_info=types.Implementation(name="unbroken", version=unbroken.__version__),
            extensions=[advertise(TASKS_EXTENSION)],
            cache=None,
        )
        begun = False
        try:
            with _unwrapped():
                async with _entered(client, self._limits.mcp_start_seconds):
                    self._client = client
                    begun = True
                    yield self
        except Failure:
            raise
        except (MCPError, ValidationError, RuntimeError, TimeoutError, httpx2.HTTPError) as error:
            if begun:
                raise
            failure = await self._explained(failure_of(error))
            failure.executed = False
            raise failure from None

    @staticmethod
    def _version_of(era: types.DiscoverResult) -> str:
        return next(version for version in reversed(MODERN_PROTOCOL_VERSIONS) if version in era.supported_versions)


@asynccontextmanager
async def _entered(client: Client, seconds: float) -> AsyncIterator[None]:
    """`client`, entered within `seconds`."""
    async with asyncio.timeout(seconds) as timer:
        async with client:
            timer.reschedule(None)
            yield


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise what happened inside, not the groups that the SDK's task groups make of it."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        raise leaf from None


@asynccontextmanager
async def http_session(
    client: httpx2.AsyncClient, limits: Limits, redact: Redaction, era: Era, *, known: bool
) -> AsyncIterator[Session]:
    """A session of its own over the server's one HTTP client."""
    transport = streamable_http_client(
        PLACEHOLDER_URL, http_client=client, max_sse_event_size=limits.mcp_result_bytes_max
    )
    async with Session("http", limits, redact).connected(transport, era, known=known) as session:
        yield session


@asynccontextmanager
async def stdio_session(
    config: ServerConfig, limits: Limits, redact: Redaction, on_end: Callable[[], None]
) -> AsyncIterator[Session]:
    """A session over a process of its own; `on_end` is told when it ends by itself."""
    assert isinstance(config.reach, StdioServer)
    session = Session("stdio", limits, redact)
    try:
        with _unwrapped():
            async with started(config.reach, limits) as child:
                session.child = child
                session.lines = lines = Lines(child, on_end)
                async with session.connected(lines.transport(), None, known=False):
                    yield session
    except OSError as error:
        if session.child is not None:
            raise
        what = f"the server cannot be started: {error.strerror or type(error).__name__}"
        raise Failure(kind=FailureClass.SPAWN, message=what, executed=False) from None


# --- what went wrong -----------------------------------------------------------------------------------------------------


def failure_of(error: Exception) -> Failure:
    """What the SDK raised, as a `Failure`."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, MCPError):
        return _of_answer(error)
    name = type(error).__name__
    if isinstance(error, ValidationError):
        return Failure(
            kind=FailureClass.BAD_RESPONSE, message="the answer is not what the protocol allows", answered=True
        )
    if isinstance(error, RuntimeError) and "protocol version" in str(error):
        named = str(error).rpartition(":")[2].strip()[:100]
        return _mismatch([named])
    if isinstance(error, TimeoutError):
        return Failure(kind=FailureClass.TRANSPORT, message="the server did not answer in time", exception=name)
    if isinstance(error, httpx2.HTTPError):
        return Failure(kind=FailureClass.TRANSPORT, message=f"the connection failed ({name})", exception=name)
    return Failure(kind=FailureClass.BAD_RESPONSE, message=f"the exchange failed ({name})", exception=name)


def _of_answer(error: MCPError) -> Failure:
    data = error.data if isinstance(error.data, Mapping) else {}
    if FACTS_KEY in data:
        facts = _facts(data[FACTS_KEY])
        if error.code == types.UNSUPPORTED_PROTOCOL_VERSION:
            return _mismatch(_versions(data))
        return Failure(
            kind=facts.kind,
            message=error.message,
            executed=not facts.unsent,
            code=error.code,
            http_status=facts.http_status,
            retry_after=facts.retry_after,
            www_authenticate=facts.www_authenticate,
            exception=facts.exception,
            answered=facts.http_status is not None,
        )
    if error.code == types.UNSUPPORTED_PROTOCOL_VERSION:
        return _mismatch(_versions(data))
    if error.code == types.CONNECTION_CLOSED and error.message.startswith(LOST):
        return Failure(kind=FailureClass.TRANSPORT, message="the connection to the server was lost")
    if error.code == types.CONNECTION_CLOSED and error.message.startswith("SSE stream failed"):
        too_large = "byte limit" in error.message
        kind = FailureClass.TOO_LARGE if too_large else FailureClass.BAD_RESPONSE
        return Failure(kind=kind, message=error.message, code=error.code, answered=True)
    if error.code == types.PARSE_ERROR and error.message.startswith("Failed to parse"):
        return Failure(
            kind=FailureClass.BAD_RESPONSE,
            message="the server's answer is not JSON-RPC",
            code=error.code,
            answered=True,
        )
    if error.code == types.REQUEST_TIMEOUT and error.message.startswith("Request"):
        return Failure(kind=FailureClass.TRANSPORT, message="the server did not answer in time", code=error.code)
    return Failure(kind=FailureClass.SERVER_ERROR, message=error.message, code=error.code, answered=True)


def _facts(raw: object) -> Facts:

    return msgspec.convert(raw, Facts)


def _versions(data: Mapping[str, object]) -> list[str]:
    supported = data.get("supported")
    return [str(version)[:100] for version in supported][:20] if isinstance(supported, list) else []


def _mismatch(theirs: list[str]) -> Failure:
    ours = [*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS]
    spoken = ", ".join(theirs) or "versions that it does not name"
    return Failure(
        kind=FailureClass.PROTOCOL_MISMATCH,
        message=f"the server speaks MCP {spoken}; this client speaks {', '.join(ours)}",
        executed=False,
        code=types.UNSUPPORTED_PROTOCOL_VERSION,
        versions={"server": theirs, "client": ours},
        answered=True,
    )
