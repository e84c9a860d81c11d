"""A network in memory: names that can be listened on and reached, over paths that are slow, cut, swallowed or refused.

Give it to `run_virtual`; whatever uses the event loop's `create_server` and `create_connection` then runs over it unchanged.
It opens no socket, and all its chance comes from one seed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextvars import copy_context
from itertools import count

from unbroken.testing.simulation.chance import chance_of
from unbroken.testing.simulation.transport import SEGMENT_BYTES, Address, Link, SimulatedTransport

__all__ = ["Listener", "SimulatedNetwork", "NetworkPath"]

CONNECT_SECONDS_MAX = 120.0
WINDOW_BYTES = 64 * 1024
Factory = Callable[[], asyncio.BaseProtocol]


class NetworkPath:
    """The way of everybody who connects to one name; faults are done to it."""

    def __init__(self, network: SimulatedNetwork, name: str, target: str) -> None:
        self.name = name
        self.target = target
        self.latency_seconds = network.latency_seconds
        self.jitter_seconds = network.jitter_seconds
        self.sliced = network.sliced
        self.window_bytes = network.window_bytes
        """What may be on the way in one direction of a connection, or wait for a peer that does not read."""
        self.refusing = False
        self.hole: asyncio.Event | None = None
        self.swallowed = 0
        """How many segments and attempts to connect a hole has swallowed so far."""
        self.refused = 0
        self.connected = 0
        """How many connections there ever were."""
        self.waiting_most = 0
        """The most bytes that ever waited on the server's side of a connection because the other side took no more."""
        self.links: dict[Link, None] = {}
        self._random = chance_of(network.seed, f"path {name}")
        self._healed: list[Callable[[], None]] = []

    def delay(self) -> float:
        """How long the next segment takes."""
        return self.latency_seconds + self._random.random() * self.jitter_seconds

    def segment(self) -> int:
        """How many bytes the next segment may have."""
        return self._random.randint(1, 600) if self.sliced else SEGMENT_BYTES

    def cut(self) -> int:
        """Break every connection; how many."""
        links = list(self.links)
        for link in links:
            link.reset()
        return len(links)

    def swallow(self) -> None:
        """Let nothing through, in either direction, and say nothing of it."""
        if self.hole is None:
            self.hole = asyncio.Event()

    def heal(self) -> None:
        """Let everything through again; what was swallowed is sent once more by whoever still exists."""
        hole, self.hole = self.hole, None
        if hole is not None:
            hole.set()
        waiting, self._healed = self._healed, []
        for retry in dict.fromkeys(waiting):
            retry()

    def on_heal(self, retry: Callable[[], None]) -> None:
        self._healed.append(retry)


class Listener(asyncio.AbstractServer):
    """What listens on a name; as asyncio's servers."""

    def __init__(self, network: SimulatedNetwork, address: Address, factory: Factory) -> None:
        self._network = network
        self._address = address
        self._factory = factory
        self._closed = asyncio.Event()
        self._context = copy_context()

    @property
    def sockets(self) -> Sequence[ListeningSocket]:
        return () if self._closed.is_set() else (ListeningSocket(self._address),)

    def accept(self, transport: SimulatedTransport) -> None:
        """A connection has come; what it brings happens in the context in which somebody began to listen."""
        context = self._context.copy()
        transport.begin(context.run(self._factory), context)

    def close(self) -> None:
        """Listen no more; connections stay."""
        self._network.forget(self._address, self)
        self._closed.set()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    def is_serving(self) -> bool:
        return not self._closed.is_set()

    async def start_serving(self) -> None:
        """It serves from the beginning."""

    async def serve_forever(self) -> None:
        await self._closed.wait()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()


class ListeningSocket:
    """Where a listener is."""

    family = socket.AF_INET

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class SimulatedNetwork:
    """All names, paths and connections of one simulated world.

    A name that nobody gave a target is its own. `alias("phone", "server")` makes a path of its own: faults done to
    `path("phone")` reach only who connected to that name.
    """

    def __init__(
        self, seed: int | str, *, latency_seconds: float = 0.001, jitter_seconds: float = 0.0, sliced: bool = False
    ) -> None:
        self.seed = seed
        self.latency_seconds = latency_seconds
        self.jitter_seconds = jitter_seconds
        self.sliced = sliced
        self.window_bytes = WINDOW_BYTES
        self._paths: dict[str, NetworkPath] = {}
        self._listeners: dict[Address, Listener] = {}
        self._off: dict[str, asyncio.Event] = {}
        self._ports = count(49_152)

    @property
    def paths(self) -> Sequence[NetworkPath]:
        """Every path that was used or made, oldest first."""
        return list(self._paths.values())

    def path(self, name: str) -> NetworkPath:
        """The path of those who connect to `name`."""
        found = self._paths.get(name)
        if found is None:
            found = self._paths[name] = NetworkPath(self, name, name)
        return found

    def alias(self, name: str, target: str) -> NetworkPath:
        """Make `name` another way to `target`."""
        path = self.path(name)
        path.target = target
        return path

    # --- faults of a machine -----------------------------------------------------------------------------------------

    def kill(self, target: str, *, silent: bool = False) -> int:
        """Everything that runs on `target` is gone; how many connections broke.

        Its peers get a reset, as after `kill -9`, or with `silent` nothing until it is switched `on` again, as after a loss
        of power.
        """
        for address in [known for known in self._listeners if known[0] == target]:
            del self._listeners[address]
        if silent:
            self._off.setdefault(target, asyncio.Event())
        broken = [link for path in self._paths.values() if path.target == target for link in path.links]
        for link in broken:
            if silent:
                link.server.power_off()
            else:
                link.server.abort()
        return len(broken)

    def on(self, target: str) -> None:
        """The machine is there again: it answers what it knows nothing of with a reset."""
        event = self._off.pop(target, None)
        if event is not None:
            event.set()
        for path in self._paths.values():
            if path.target == target:
                for link in path.links:
                    link.server.power_on()

    # --- what the event loop asks for --------------------------------------------------------------------------------

    def listen(self, factory: Factory, host: str, port: int) -> Listener:
        """Listen on a name; `OSError` when somebody does already."""
        address = (host, port or next(self._ports))
        if address in self._listeners:
            raise OSError(f"somebody listens on {host}:{port} already")
        listener = self._listeners[address] = Listener(self, address, factory)
        return listener

    def forget(self, address: Address, listener: Listener) -> None:
        if self._listeners.get(address) is listener:
            del self._listeners[address]

    async def connect(self, factory: Factory, host: str, port: int) -> tuple[SimulatedTransport, asyncio.BaseProtocol]:
        """Connect to a name; `ConnectionRefusedError` where nobody listens, `TimeoutError` where nobody answers."""
        path = self.path(host)
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            await asyncio.sleep(path.delay() + path.delay())
            while (hole := path.hole or self._off.get(path.target)) is not None:
                path.swallowed += 1
                await hole.wait()
                await asyncio.sleep(path.delay())
        listener = self._listeners.get((path.target, port))
        if listener is None or path.refusing:
            path.refused += 1
            raise ConnectionRefusedError(f"nobody listens on {host}:{port}")
        link = Link(path, (host, next(self._ports)), (path.target, port))
        path.links[link] = None
        path.connected += 1
        protocol = factory()
        link.client.begin(protocol)
        listener.accept(link.server)
        return link.client, protocol
