"""An event loop whose clock jumps: waiting takes no real time, so a day of timeouts passes in seconds.

With a `SimulatedNetwork` everything else is simulated too, and one seed is one run, event for event; without one, sockets of
the loopback interface are real and only time is not. It never changes what happens, only when.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
import socket
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from unbroken.testing.simulation.freezing import FreezableHandle

if TYPE_CHECKING:
    from unbroken.testing.simulation.network import SimulatedNetwork

__all__ = ["VirtualLoop", "run_virtual"]

T = TypeVar("T")
Callback = Callable[..., object]
GRACE_SECONDS = 0.01
"""How long the loop looks for real input before it believes that nothing will happen until the next timer."""
STUCK_SECONDS = 60.0
RESOLUTION_SECONDS = 1e-9
"""The loop runs timers this much early; jumping past it means that a timer that ran is also due."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, moves the clock there."""

    def __init__(self, grace_seconds: float, stuck_seconds: float) -> None:
        super().__init__()
        self.now = 0.0
        self._grace = grace_seconds
        self._stuck = stuck_seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and not self._grace:  # nothing is real, so there is nothing to look at
            self.now += timeout + RESOLUTION_SECONDS if timeout > 0 else 0.0
            return []
        if timeout is None:
            ready = super().select(self._stuck)
            assert ready, "nothing happens and nothing is due: this would wait for ever"
            return ready
        ready = super().select(min(timeout, self._grace))
        if not ready and timeout > 0:
            self.now += timeout + RESOLUTION_SECONDS
        return ready


class _Timer(asyncio.TimerHandle, FreezableHandle):
    """A timer that stands behind those that were set before it for the same moment; a heap alone does not keep that."""

    __slots__ = ("number",)
    number: int

    def __lt__(self, other: _Timer) -> bool:  # type: ignore[override]
        if self._when == other._when:  # type: ignore[attr-defined]
            return self.number < other.number
        return self._when < other._when  # type: ignore[attr-defined,no-any-return]


class _Task(asyncio.Task[object]):
    """A task whose place in a set does not depend on where in memory it lies."""

    _number = 0

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0.

    Timers for the same moment run in the order in which they were set. With a network, `create_server` and
    `create_connection` go through it, `run_in_executor` calls at once, and sets of tasks have one order.
    """

    def __init__(self, network: SimulatedNetwork | None = None) -> None:
        simulated = network is not None
        self._jumping = _JumpingSelector(0.0 if simulated else GRACE_SECONDS, 0.0 if simulated else STUCK_SECONDS)
        super().__init__(self._jumping)
        self.network = network
        self._numbers = count()
        self._tasks_made = count(1)
        if network is not None:
            self.set_task_factory(self._make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        return self._jumping.now

    def call_at(
        self, when: float, callback: Callback, *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        timer.number = next(self._numbers)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_later(
        self, delay: float, callback: Callback, *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[object, object, T], **options: object
    ) -> asyncio.Task[T]:
        number = next(self._tasks_made)
        task = _Task.__new__(_Task)
        task._number = number
        _Task.__init__(task, work, loop=loop, **options)  # type: ignore[arg-type]
        return task  # type: ignore[return-value]

    def _call_soon(self, callback: Callback, args: tuple[object, ...], context: Context | None) -> asyncio.Handle:
        if self.network is None:
            return super()._call_soon(callback, args, context)  # type: ignore[misc,no-any-return]
        handle = FreezableHandle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    # --- with a network ----------------------------------------------------------------------------------------------

    async def create_connection(self, protocol_factory, host=None, port=None, **options):  # type: ignore[no-untyped-def]
        """As asyncio's, through the network where there is one; it carries no TLS."""
        if self.network is None:
            return await super().create_connection(protocol_factory, host, port, **options)
        assert not options.get("ssl"), "the simulated network carries no TLS"
        return await self.network.connect(protocol_factory, host, port)

    async def create_server(self, protocol_factory, host=None, port=None, **options):  # type: ignore[no-untyped-def]
        """As asyncio's, on the network where there is one."""
        if self.network is None:
            return await super().create_server(protocol_factory, host, port, **options)
        return self.network.listen(protocol_factory, host or "localhost", port or 0)

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        """Every name of a network is its own address."""
        if self.network is None:
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        name = host.decode() if isinstance(host, bytes) else host
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (name, port))]

    def run_in_executor(self, executor, func, *args):  # type: ignore[no-untyped-def,override]
        """With a network there are no threads: `func` runs now."""
        if self.network is None:
            return super().run_in_executor(executor, func, *args)
        future: asyncio.Future[object] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            future.set_exception(error)
        return future


def run_virtual(main: Coroutine[object, object, T], network: SimulatedNetwork | None = None) -> T:
    """Run `main` in virtual time, over a simulated network if one is given."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(network)) as runner:
        return runner.run(main)
