"""`FaultProxy`: a TCP proxy for tests that breaks connections on purpose.

Tests put it between a client and a server, of Unbroken or of anything else on TCP, and add toxics while it runs. It never
looks into the bytes, and never has more than a bounded amount of them in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from types import TracebackType
from typing import Self

from unbroken.testing.pump import Faults, Pump
from unbroken.testing.toxics import Applied, Direction, HalfOpen, Timeout, Toxic

__all__ = ["FaultProxy"]


class _Connection:
    """One client and the server behind it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.silent = False
        self.released = asyncio.Event()

    def reset(self) -> None:
        """RST to both ends."""
        for writer in (self.client, self.server):
            peer = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self.released.set()

    def drop_server(self) -> None:
        """The server's side ends, the client's hears nothing of it."""
        self.silent = True
        self.server.transport.abort()

    def close(self) -> None:
        """FIN to both ends."""
        self.client.close()
        self.server.close()


class FaultProxy:
    """Listens on `listen` (a loopback address, with a free port) and passes everything on to `host`:`port`.

    Use it as `async with FaultProxy(host, port, seed=7) as proxy` and connect to `proxy.url`. Faults are best triggered by
    progress, not by time: `add(..., after_bytes=…)`, or `add(..., after_messages=…)` with `message()` called for each
    message that an observer got, or by calling `reset`, `down`, `up` and `hold` at the right moment. Random choices come
    from `seed`. `bites` says what really happened. `receive_bytes` bounds what the system takes in for it from the
    server, so that a server whose viewer is held up feels it soon.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        seed: int = 0,
        receive_bytes: int | None = None,
        listen: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.target = (host, port)
        """Where new connections go; may be changed while it runs."""
        self.seed = seed
        self.receive_bytes = receive_bytes
        self.host, self.port = listen
        self.accepted = 0
        self.refused = 0
        self._applied: list[Applied] = []
        self._faults = Faults(self._applied, random.Random(seed))  # noqa: S311 - repeatable faults, not secrets
        self._cut: Counter[str] = Counter()
        self._connections: set[_Connection] = set()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    @property
    def bites(self) -> Counter[str]:
        """How often each kind of fault really did something, over the whole life of the proxy."""
        total = Counter(self._cut)
        for applied in self._applied:
            total[applied.name] += applied.bites
        return +total

    # --- faults ------------------------------------------------------------------------------------------------------

    def add(
        self,
        toxic: Toxic,
        *,
        direction: Direction = Direction.BOTH,
        after_bytes: int = 0,
        after_messages: int = 0,
        times: int | None = None,
    ) -> Applied:
        """Put a toxic into force, at once or when so many bytes have passed or messages were reported; `times` bounds
        its bites.
        """
        applied = Applied(toxic, direction, after_bytes=after_bytes, after_messages=after_messages, times=times)
        self._applied.append(applied)
        return applied

    def message(self) -> None:
        """An observer has got one more message: progress for toxics that wait `after_messages`."""
        for applied in self._applied:
            applied.message()

    def reset(self) -> int:
        """Reset every open connection now; gives how many there were."""
        cut = list(self._connections)
        for connection in cut:
            connection.reset()
        self._cut["reset"] += len(cut)
        return len(cut)

    def hold(self) -> Applied:
        """A black hole in both directions until the answer's `remove` is called."""
        return self.add(Timeout())

    def heal(self) -> None:
        """Remove every toxic; connections that a half-open fault left behind are reset."""
        for applied in self._applied:
            applied.remove()
        for connection in list(self._connections):
            if connection.silent:
                connection.reset()

    def half_open(self, *, after_bytes: int = 0) -> Applied:
        """The next connection that carries data loses its server in silence."""
        return self.add(HalfOpen(), after_bytes=after_bytes, times=1)

    async def down(self) -> int:
        """Refuse connections and reset the open ones, as a machine that went away; gives how many were open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        cut = self.reset()
        self._cut["down"] += 1
        return cut

    async def up(self) -> None:
        """Listen again, on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    # --- running -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.client.transport.abort()
            connection.server.transport.abort()
            connection.released.set()
        for task in list(self._tasks):
            task.cancel()
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._group.__aexit__(kind if cancelled else None, error if cancelled else None, None)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = self._group.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until both directions have ended."""
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.target)
        except OSError:
            self.refused += 1
            writer.transport.abort()
            return
        if self.receive_bytes is not None:
            server_socket = server_writer.get_extra_info("socket")
            server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        up = Pump(reader, server_writer, Direction.UPSTREAM, self._faults, connection)
        down = Pump(server_reader, writer, Direction.DOWNSTREAM, self._faults, connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(up.run())
                group.create_task(down.run())
            if connection.silent:
                await connection.released.wait()
        finally:
            self._connections.discard(connection)
            writer.transport.abort()
            server_writer.transport.abort()
