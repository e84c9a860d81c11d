"""Whatever a server says, before anything of ours or of the SDK reads it: without the operator's secrets, and looked at.

It stands between a transport and the SDK. Two values stay as they are, because the server wants them back: the state of a
round of questions and the id of a task; who stores them redacts them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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
                message = message.model_copy(update={"params": self._redact.value(message.params)})
            case JSONRPCResponse():
                kept = {name: value for name, value in message.result.items() if name in OPAQUE}
                result = self._redact.value(message.result)
                assert isinstance(result, dict)
                message = message.model_copy(update={"result": {**result, **kept}})
            case JSONRPCError():
                told = {"message": self._redact(message.error.message), "data": self._redact.value(message.error.data)}
                message = message.model_copy(update={"error": message.error.model_copy(update=told)})
        return SessionMessage(message, item.metadata)
