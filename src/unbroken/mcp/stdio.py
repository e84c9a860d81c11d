"""MCP over a process's lines, in the form that the SDK reads and writes.

Junk between messages and broken UTF-8 are passed over; an answer that cannot be read, or a line without end, ends the
connection with its reason. It is imported with the SDK.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from unbroken.mcp.failures import FailureClass
from unbroken.mcp.process import Child, LineTooLongError

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

__all__ = ["Lines"]

logger = logging.getLogger(__name__)
LOOK_BYTES = 200


class Lines:
    """The connection to one child. `broken` says why it ended, when that was not the child's own end."""

    def __init__(self, child: Child, on_end: Callable[[], None]) -> None:
        self.child = child
        self.broken: FailureClass | None = None
        self.ended = False
        self._on_end = on_end

    @asynccontextmanager
    async def transport(
        self,
    ) -> AsyncIterator[
        tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]
    ]:
        """The pair of streams that a `Client` takes."""
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        async with incoming, read, write, outgoing, asyncio.TaskGroup() as tasks:
            helpers = (
                tasks.create_task(self._read(incoming)),
                tasks.create_task(self._write(outgoing, incoming)),
            )
            try:
                yield read, write
            finally:
                for helper in helpers:
                    helper.cancel()

    async def _read(self, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        try:
            async for line in self.child.lines():
                message = self._parse(line)
                if self.broken is not None:
                    return
                if message is not None:
                    await incoming.send(message)
        except LineTooLongError:
            self.broken = FailureClass.TOO_LARGE
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            logger.debug("the session over process %d has ended", self.child.pid)
        finally:
            await incoming.aclose()
            self.ended = True
            self._on_end()

    def _parse(self, line: bytes) -> SessionMessage | None:
        text = line.decode(errors="replace")
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(text, by_name=False))
        except (ValidationError, RecursionError):
            if line.lstrip().startswith(b"{") and b'"jsonrpc"' in line[:LOOK_BYTES]:
                self.broken = FailureClass.BAD_RESPONSE  # an answer that somebody would wait for in vain
            return None

    async def _write(
        self,
        outgoing: MemoryObjectReceiveStream[SessionMessage],
        incoming: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        try:
            async for message in outgoing:
                await self.child.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode())
        except OSError:
            await incoming.aclose()
            self.ended = True
            self._on_end()
