"""Whatever a server says, before anything of ours or of the SDK reads it: without the operator's secrets, and looked at.

It stands between a transport and the SDK. What the server wants back stays as it is: names of tools, arguments and answers,
and the state of a round of questions and the id of a task; who stores the last two redacts them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from unbroken.mcp.redaction import Redaction

if TYPE_CHECKING:
    from mcp.shared._stream_protocols import ReadStream, WriteStream

    Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]

__all__ = ["cleaned"]

OPAQUE: Final = frozenset({"requestState", "taskId"})
SCHEMAS: Final = frozenset({"inputSchema", "outputSchema", "requestedSchema"})
Object = Mapping[str, object]


@asynccontextmanager
async def cleaned(
    transport: AbstractAsyncContextManager[Any], redact: Redaction, on_request: Callable[[str], None]
) -> AsyncIterator[Streams]:
    """`transport`, without secrets. `on_request` is told the method of each request of the server; it never waits."""
    async with transport as (read, write):
        yield _Cleaned(read, redact, on_request), write


class _Cleaned:
    """A read stream of the SDK over another."""

    def __init__(
        self, inner: ReadStream[SessionMessage | Exception], redact: Redaction, on_request: Callable[[str], None]
    ) -> None:
        self._inner = inner
        self._redact = redact
        self._on_request = on_request

    @property
    def last_context(self) -> object:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return self._clean(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> _Cleaned:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._clean(await anext(self._inner))

    async def __aenter__(self) -> _Cleaned:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)

    def _clean(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(item, Exception):
            return item
        message = item.message
        match message:
            case JSONRPCRequest() | JSONRPCNotification():
                if isinstance(message, JSONRPCRequest):
                    self._on_request(message.method)
                params = None if message.params is None else self._params(message.params, message.method)
                message = message.model_copy(update={"params": params})
            case JSONRPCResponse():
                message = message.model_copy(update={"result": self._result(message.result)})
            case JSONRPCError():
                told = {"message": self._redact(message.error.message), "data": self._free(message.error.data)}
                message = message.model_copy(update={"error": message.error.model_copy(update=told)})
        return SessionMessage(message, item.metadata)

    def _free(self, value: object) -> object:
        """What only the tool knows the shape of: a number in it may be anything, and no reader needs it to be one."""
        return self._redact.value(value, numbers=True)

    def _params(self, params: Object, method: str) -> dict[str, object]:
        found = self._told(params)
        if method == "notifications/message" and "data" in params:
            found["data"] = self._free(params["data"])
        return found

    def _result(self, result: Object) -> dict[str, object]:
        found = self._told(result)
        if "structuredContent" in result:
            found["structuredContent"] = self._free(result["structuredContent"])
        found |= {name: value for name, value in result.items() if name in OPAQUE}
        tools, requests = result.get("tools"), result.get("inputRequests")
        if isinstance(tools, list):
            found["tools"] = [self._tool(tool) for tool in tools]
        if isinstance(requests, Mapping):
            found["inputRequests"] = {key: self._request(request) for key, request in requests.items()}
        return found

    def _tool(self, tool: object) -> object:
        if not isinstance(tool, Mapping):
            return self._redact.value(tool)
        return {**self._told(tool), "name": tool.get("name")}

    def _request(self, request: object) -> object:
        if not isinstance(request, Mapping) or not isinstance(request.get("params"), Mapping):
            return self._redact.value(request)
        return {**self._told(request), "params": self._told(request["params"])}

    def _told(self, told: Object) -> dict[str, object]:
        """An object without secrets; a schema in it keeps its names."""
        clean = self._redact.value(told)
        assert isinstance(clean, Mapping)
        schemas = {name: self._redact.schema(value) for name, value in told.items() if name in SCHEMAS}
        return {**clean, **schemas}
