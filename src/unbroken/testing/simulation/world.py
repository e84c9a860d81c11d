"""One simulated world: what everybody in it shares, and the record of what happened.

Actors take clients, histories and chance from it and tell it of their progress; faults wait for that progress. It does
nothing by itself and never touches a message.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import msgspec

from unbroken.client import Client
from unbroken.messages import StreamId, StreamState, can_transition
from unbroken.store.base import Appended, Created, Done, WriteOp, WriteResult
from unbroken.testing.history import History
from unbroken.testing.history_events import Ack, Deliver, Event
from unbroken.testing.progress import Progress
from unbroken.testing.simulation.chance import chance_of
from unbroken.testing.simulation.clock import SimulatedClock
from unbroken.testing.simulation.executions import Executions
from unbroken.testing.simulation.network import SimulatedNetwork
from unbroken.testing.simulation.plan import Plan
from unbroken.testing.simulation.server import PORT

__all__ = ["World", "open_context"]

Note = tuple[float, str, Event | str]


@cache
def open_context() -> ssl.SSLContext:
    """One TLS context for all clients, none of which uses it: making one takes longer than many seeds."""
    return ssl.create_default_context()


class _Record(list[Event]):
    """The events of one stream, each also told to the world."""

    def __init__(self, world: World, stream: str) -> None:
        super().__init__()
        self._world = world
        self._stream = stream

    def append(self, event: Event) -> None:
        super().append(event)
        self._world.note(self._stream, event)
        if isinstance(event, Deliver | Ack):
            self._world.progress.step()


class World:
    """Everything of one run but the server itself."""

    def __init__(self, plan: Plan, network: SimulatedNetwork) -> None:
        self.plan = plan
        self.network = network
        self.progress = Progress()
        self.violations: list[str] = []
        self.clock = SimulatedClock(chance_of(plan.seed, "server clock"))
        """The server's."""
        self.notes: list[Note] = []
        self.histories: dict[str, History] = {}
        self.written = {stream.name: asyncio.Event() for stream in plan.streams}
        """Set when nobody will write to the stream any more."""
        self.pending_bytes: Callable[[], int] = lambda: 0
        """How many bytes wait in the server to become durable."""
        self.pending_most = 0
        self.executions = Executions(self.violated, 2 * plan.limits.lease_seconds)
        self._states: dict[StreamId, StreamState] = {}
        for stream in plan.streams:
            history = self.histories[stream.name] = History(now=self.now)
            history.events = _Record(self, stream.name)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def note(self, subject: str, what: Event | str) -> None:
        """Write down what happened."""
        self.notes.append((self.now(), subject, what))

    def violated(self, text: str) -> None:
        """A promise was broken."""
        self.note("violation", text)
        self.violations.append(text)

    def lines(self) -> Iterator[bytes]:
        """The record as lines: the same seed gives the same bytes."""
        for at, subject, what in self.notes:
            yield b"%.9f %s %s" % (at, subject.encode(), msgspec.json.encode(what))

    def client(self, name: str) -> Client:
        """A client with a path and a clock of its own."""
        chance = chance_of(self.plan.seed, f"client {name} {len(self.notes)}")
        clock = SimulatedClock(chance)
        return Client(self.url(name), limits=self.plan.limits, clock=clock, ssl=open_context())

    def url(self, name: str) -> str:
        """Where `name` finds the server that it always uses."""
        self.network.alias(name, chance_of(self.plan.seed, f"target {name}").choice(self.plan.servers))
        return f"http://{name}:{PORT}"

    def committed(self, ops: Sequence[WriteOp], results: Sequence[WriteResult]) -> None:
        """The store has written: only what the life cycle allows may have happened."""
        self.pending_most = max(self.pending_most, self.pending_bytes())
        for op, result in zip(ops, results, strict=True):
            if isinstance(result, Created):
                self._states.setdefault(result.stream.id, result.stream.state)
            elif isinstance(result, Done) and result.stream is not None:
                self._moved(result.stream.id, result.stream.state)
            elif isinstance(result, Appended):
                stream = result.moved_to[0] if result.moved_to is not None else getattr(op, "stream", None)
                if stream is not None:
                    self._moved(stream, result.state)

    def _moved(self, stream: StreamId, state: StreamState) -> None:
        before = self._states.get(stream, state)
        self._states[stream] = state
        if before is not state and not can_transition(before, state):
            self.violated(f"stream {stream} went from {before} to {state}")
