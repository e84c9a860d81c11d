"""What happens in one seed: its streams, who writes and watches them, and which faults come when. All of it is drawn at once.

`plan_of` makes a `Plan` from a seed alone; a plan can be run with fewer faults, which changes nothing else in it. It starts
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.testing.simulation.chance import chance_of

__all__ = [
    "EVERYBODY",
    "FaultKind",
    "FaultPlan",
    "Plan",
    "StreamKind",
    "StreamPlan",
    "ViewerKind",
    "ViewerPlan",
    "plan_of",
]

KIB = 1024
EVERYBODY = "*"
SERVER = "server"
TIGHT = replace(
    DEFAULT_LIMITS,
    ring_batches_max=4,
    ring_bytes_max=4 * KIB,
    connection_buffer_bytes_max=2 * KIB,
    connection_pending_appends_max=8,
    read_messages_max=16,
    read_bytes_max=8 * KIB,
    commit_messages_max=8,
    pending_bytes_max=16 * KIB,
    compact_chunks_min=4,
    client_follow_messages_max=8,
    client_window_appends_max=4,
    store_cached_streams_max=1,
)
"""Bounds so low that a few messages reach them."""


class StreamKind(StrEnum):
    LEASED = "leased"
    """One producer with a lease; perhaps several incarnations of it, one after the other."""
    SHARED = "shared"
    """Several writers at once, without a lease."""
    RUN = "run"
    """A task that the server executes, with checkpoints."""


class ViewerKind(StrEnum):
    STEADY = "steady"
    RETURNING = "returning"
    """Leaves and comes back with its cursor, as a page that is reloaded."""
    SLOW = "slow"
    LATE = "late"
    READING = "reading"
    """Reads page by page over HTTP."""
    EVENTS = "events"
    """Follows over SSE, as an `EventSource` does."""


class FaultKind(StrEnum):
    CUT = "cut"
    HOLE = "hole"
    FLAP = "flap"
    REFUSE = "refuse"
    LATENCY = "latency"
    KILL = "kill"
    POWER = "power"
    RESTART = "restart"
    FREEZE = "freeze"
    STORE_FAILS = "store_fails"
    STORE_UNSURE = "store_unsure"
    STORE_HANGS = "store_hangs"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class ViewerPlan:
    name: str
    kind: ViewerKind
    after: str
    every: int
    """After how many messages it leaves, or rests."""
    seconds: float
    """For how long."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    name: str
    kind: StreamKind
    messages: int
    burst: int
    pause_seconds: float
    payload_bytes: int
    lease_seconds: float
    ending: str
    """The state in which its producer ends it; `interrupted` where the producer dies instead."""
    incarnations: int
    """Producers one after the other, each of which dies; or writers at the same time."""
    trims: bool
    viewers: tuple[ViewerPlan, ...]


@dataclass(frozen=True, slots=True)
class FaultPlan:
    kind: FaultKind
    after: int
    """After how many deliveries and acknowledgements in all."""
    path: str
    """Whose connections; `*` is everybody's."""
    seconds: float
    count: int
    """How often, how many, or which variant."""
    process: str = SERVER
    """Which server or worker dies, stops or is frozen."""

    def __str__(self) -> str:
        where = "" if self.kind in _OF_SERVER else f" of {self.path}"
        where = f" of {self.process}" if self.kind in OF_PROCESS and self.process != SERVER else where
        return f"{self.kind}{where} after {self.after}, {self.seconds:.1f} s, x{self.count}"


OF_PROCESS = frozenset({FaultKind.KILL, FaultKind.POWER, FaultKind.RESTART, FaultKind.FREEZE})
_OF_SERVER = frozenset(FaultKind) - {
    FaultKind.CUT,
    FaultKind.HOLE,
    FaultKind.FLAP,
    FaultKind.REFUSE,
    FaultKind.LATENCY,
}


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    streams: tuple[StreamPlan, ...]
    faults: tuple[FaultPlan, ...]
    limits: Limits
    latency_seconds: float
    jitter_seconds: float
    sliced: bool
    window_bytes: int
    sqlite: bool
    standalone: bool
    servers: tuple[str, ...] = (SERVER,)
    """Those that clients reach, each with a supervisor."""
    workers: tuple[str, ...] = ()
    """Those that only execute runs."""
    reuses: bool = False
    """Whether a name is deleted and used again."""
    forks: bool = False

    @property
    def fleet(self) -> bool:
        """Whether several processes share the database."""
        return len(self.servers) + len(self.workers) > 1

    def with_faults(self, faults: tuple[FaultPlan, ...]) -> Plan:
        """The same with these faults only."""
        return replace(self, faults=faults)


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    chance, fleet = chance_of(seed, "plan"), chance_of(seed, "fleet")
    servers, workers = _processes(fleet)
    streams = tuple(_stream(chance, number) for number in range(chance.choice((1, 1, 2))))
    if len(servers + workers) > 1:
        streams = (*streams, _long_run(fleet, f"s{len(streams)}"))
    paths = [EVERYBODY, *writers(streams), *(viewer.name for stream in streams for viewer in stream.viewers)]
    expected = sum(stream.messages * (1 + len(stream.viewers)) for stream in streams)
    faults = sorted(
        (_fault(chance, paths, expected) for _ in range(chance.randint(1, 4))), key=lambda fault: fault.after
    )
    faults = [replace(fault, process=fleet.choice(servers + workers)) for fault in faults]
    if len(servers + workers) > 1:
        faults += [_process_fault(fleet, servers + workers, expected) for _ in range(2)]
        faults.sort(key=lambda fault: fault.after)
    return Plan(
        seed=seed,
        streams=streams,
        faults=tuple(faults),
        limits=chance.choice((DEFAULT_LIMITS, TIGHT)),
        latency_seconds=chance.choice((0.0005, 0.02)),
        jitter_seconds=chance.choice((0.0, 0.002, 0.1)),
        sliced=chance.random() < 0.25,
        window_bytes=chance.choice((KIB, 64 * KIB)),
        sqlite=chance.random() < 0.2,
        standalone=chance.random() < 0.8,
        servers=servers,
        workers=workers,
        reuses=fleet.random() < 0.25,
        forks=fleet.random() < 0.25,
    )


def _process_fault(chance: Random, processes: tuple[str, ...], expected: int) -> FaultPlan:
    """One of the processes is killed, frozen or restarted."""
    fault = _fault(chance, [EVERYBODY], expected)
    kind = chance.choice((FaultKind.KILL, FaultKind.POWER, FaultKind.RESTART, FaultKind.FREEZE, FaultKind.FREEZE))
    return replace(
        fault, kind=kind, seconds=chance.choice((1.0, 4.0, 8.0, 15.0, 40.0)), process=chance.choice(processes)
    )


def _processes(chance: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The servers and the workers on one database: mostly one server alone."""
    if chance.random() < 0.8:
        return (SERVER,), ()
    servers = tuple(f"server-{number}" for number in range(chance.choice((1, 2, 3))))
    return servers, tuple(
        f"worker-{number}" for number in range(chance.choice((0, 1, 1, 2) if len(servers) > 1 else (1, 2)))
    )


def writers(streams: tuple[StreamPlan, ...]) -> list[str]:
    """The paths of those who write."""
    return [
        f"{stream.name}-writer-{number}"
        for stream in streams
        if stream.kind is not StreamKind.RUN
        for number in range(stream.incarnations)
    ]


def _stream(chance: Random, number: int) -> StreamPlan:
    name = f"s{number}"
    kind = chance.choices((StreamKind.LEASED, StreamKind.SHARED, StreamKind.RUN), (5, 3, 2))[0]
    ending = "completed"
    if kind is StreamKind.LEASED:
        ending = chance.choices(("completed", "failed", "cancelled", "interrupted"), (5, 1, 2, 2))[0]
    return StreamPlan(
        name=name,
        kind=kind,
        messages=chance.randint(15, 50),
        burst=chance.choice((1, 1, 3, 7)),
        pause_seconds=chance.choice((0.0, 0.02, 0.2)),
        payload_bytes=chance.choice((0, 0, 300, 2_000)),
        lease_seconds=chance.choice((2.0, 6.0, 20.0)),
        ending=ending,
        incarnations=chance.choice((1, 2, 3)) if kind is not StreamKind.RUN else 1,
        trims=chance.random() < 0.1 and kind is not StreamKind.RUN,
        viewers=tuple(_viewer(chance, f"{name}-viewer-{index}") for index in range(chance.randint(2, 4))),
    )


def _long_run(chance: Random, name: str) -> StreamPlan:
    """A run that lasts for longer than its lease, so that processes can take it from each other."""
    stream = replace(
        _stream(chance, 0), name=name, kind=StreamKind.RUN, ending="completed", incarnations=1, trims=False
    )
    return replace(
        stream,
        pause_seconds=chance.choice((0.2, 0.5, 1.5)),
        viewers=tuple(_viewer(chance, f"{name}-viewer-{index}") for index in range(chance.randint(1, 2))),
    )


def _viewer(chance: Random, name: str) -> ViewerPlan:
    kind = chance.choices(tuple(ViewerKind), (3, 4, 2, 2, 1, 1))[0]
    return ViewerPlan(
        name=name,
        kind=kind,
        after=chance.choice(("start", "start", "start", "now", "last:3")),
        every=chance.randint(2, 12),
        seconds=chance.choice((0.0, 0.05, 0.5, 3.0)),
    )


def _fault(chance: Random, paths: list[str], expected: int) -> FaultPlan:
    kind = chance.choice(tuple(FaultKind))
    seconds = chance.uniform(0.5, 4.0)
    if kind in {
        FaultKind.HOLE,
        FaultKind.REFUSE,
        FaultKind.KILL,
        FaultKind.POWER,
        FaultKind.FREEZE,
        FaultKind.STORE_HANGS,
    }:
        seconds = chance.choice((chance.uniform(0.5, 2.0), chance.uniform(2.0, 20.0), chance.uniform(20.0, 90.0)))
    if kind is FaultKind.CLOCK:
        seconds = chance.choice((-3_600.0, -20.0, 5.0, 3_600.0))
    return FaultPlan(
        kind=kind,
        after=chance.randint(1, max(1, expected * 2 // 5)),
        path=chance.choice(paths),
        seconds=seconds,
        count=chance.randint(1, 4),
    )
