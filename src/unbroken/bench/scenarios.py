"""The scenarios: what is measured, on which servers, against which yardsticks, with which targets.

The command runs those that hold the wanted rows. Each server gets a fresh process for each sample; rounds go over all
servers of a scenario in turn, so that a noisy minute hurts all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from unbroken.bench.client import BenchError, Dialect, Load, LoadClient, Sample
from unbroken.bench.report import Comparison, Measured, compare, compare_rates, middle
from unbroken.bench.subjects import NATIVE, Bench, Subject, fastapi_redis, inside_fastapi, node, ours
from unbroken.quotas import Allowance

__all__ = ["SCENARIOS", "Runner", "Scale", "Scenario"]

MEMORY: Final = "ours, no storage"
PROCESS: Final = "ours, process"
DISK: Final = "ours, disk"
BASELINE: Final = "ours, the other version"
CHARGED: Final = "ours, process, all of one user"
MOUNTED: Final = "ours inside FastAPI"
REDIS: Final = "FastAPI + redis-py"
NODE: Final = "Node ws"
CORKED: Final = "Node ws, corked"
BEYOND: Final = 10**12
"""A bound that is looked at and never met."""

SSE: Final = replace(
    NATIVE, viewer_path="/v1/messages/bench/{s}?live=sse&after=start", viewer_ready="retry:", viewer_frame="", upgrade=0
)
IDLE: Final = replace(NATIVE, viewer_ready='"hello"', viewer_frame="")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: `seconds` for a sample, `rounds` samples of each server, and the sizes of the large ones."""

    seconds: float = 2.0
    rounds: int = 3
    streams: int = 100
    viewers: int = 100
    replay_bytes: int = 1 << 30
    connections: int = 5_000
    baseline: Path | None = None
    """A checkout of another version of ourselves, to be measured beside this one."""
    settle_seconds: float = 0.7
    """How long after new idle connections their memory is read."""

    @property
    def pair(self) -> Load:
        """Many streams, one message to each append, 16 in flight."""
        return Load(streams=self.streams, in_flight=16, message_bytes=64, seconds=self.seconds, warm_seconds=0.5)

    @property
    def fanout(self) -> Load:
        """One stream with many viewers, 32 messages in flight."""
        return Load(viewers=self.viewers, in_flight=32, message_bytes=256, seconds=self.seconds)


@dataclass(slots=True)
class Runner:
    """Runs samples and keeps them; a server that fails is reported and left out of the rest of its scenario."""

    bench: Bench
    client: LoadClient
    scale: Scale
    tell: Callable[[str], None]
    measured: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def samples(self, scenario: str, entries: Sequence[tuple[Subject, Load]]) -> dict[str, list[Sample]]:
        """The samples of each server, in rounds over all of them."""
        found: dict[str, list[Sample]] = {subject.name: [] for subject, _ in entries}
        failed: set[str] = set()
        for turn in range(self.scale.rounds):
            for subject, load in entries:
                if subject.name in failed:
                    continue
                self.tell(f"{scenario}: {subject.name} ({turn + 1} of {self.scale.rounds})")
                try:
                    found[subject.name].append(self.sample(subject, load))
                except BenchError as error:
                    failed.add(subject.name)
                    self.failures.append(f"{scenario}: {subject.name}: {error}")
        self.measured += [Measured(scenario, name, tuple(samples)) for name, samples in found.items() if samples]
        return found

    def sample(self, subject: Subject, load: Load) -> Sample:
        """One sample of a fresh process."""
        with subject.running(self.bench) as running:
            if load.mode in {"window", "paced"}:
                running.create(load.streams)
            return self.client.run(load, running.dialect, running.port, running.pids)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named set of measurements that gives the rows `rows` of the report."""

    name: str
    rows: frozenset[int]
    run: Callable[[Runner], Iterator[Comparison | None]]


def _pair(runner: Runner) -> Iterator[Comparison | None]:
    """Many streams at full speed: each with a producer on one connection and a viewer on another, 16 messages in flight."""
    scale = runner.scale
    load = scale.pair
    subjects = [ours("memory", name=MEMORY), ours("process", name=PROCESS), ours("disk", name=DISK)]
    subjects += [fastapi_redis(name=REDIS)] if runner.bench.tools.redis else []
    found = runner.samples("pair", [(subject, load) for subject in subjects])
    what = f"{scale.streams} streams at full speed, committed before delivery"
    for name, kind, against_redis, against_memory in (
        (PROCESS, "survives kill -9", ">= 25", ">= 0.5"),
        (DISK, "survives power loss", "", ""),
    ):
        measure = f"{what}, {kind} (messages/s)"
        yield compare_rates(1, measure, found[name], (REDIS, found.get(REDIS, ())), against_redis)
        yield compare_rates(4, measure, found[name], (MEMORY, found[MEMORY]), against_memory)


def _fanout(runner: Runner) -> Iterator[Comparison | None]:
    """One stream, many viewers, 32 messages in flight: a message is in flight until the last viewer has it."""
    scale, tools = runner.scale, runner.bench.tools
    load = scale.fanout
    subjects = [ours("memory", name=MEMORY), ours("process", name=PROCESS)]
    subjects += [node("plain", name=NODE), node("corked", name=CORKED)] if tools.ws else []
    subjects += [fastapi_redis(name=REDIS)] if tools.redis else []
    found = runner.samples("fanout", [(subject, load) for subject in subjects])
    measure = f"fan-out 1 to {scale.viewers}, no storage (deliveries/s)"
    yield compare_rates(5, measure, found[MEMORY], (NODE, found.get(NODE, ())), ">= 10")
    yield compare_rates(5, measure, found[MEMORY], (CORKED, found.get(CORKED, ())), ">= 2")
    yield compare_rates(5, measure, found[MEMORY], ("absolute", ()), ">= 1000000")
    measure = f"fan-out 1 to {scale.viewers}, committed before delivery (deliveries/s)"
    yield compare_rates(7, measure, found[PROCESS], (REDIS, found.get(REDIS, ())), ">= 15")
    yield compare_rates(7, measure, found[PROCESS], (NODE, found.get(NODE, ())), "")
    yield compare_rates(7, measure, found[PROCESS], (MEMORY, found[MEMORY]), "")


def _paced(runner: Runner) -> Iterator[Comparison | None]:
    """Many streams at the speed of a language model: 20 messages a second each, evenly spread, latency from the due time."""
    scale = runner.scale
    load = Load(mode="paced", streams=scale.streams, rate=scale.streams * 20.0, seconds=scale.seconds, warm_seconds=0.5)
    subjects = [ours("memory", name=MEMORY), ours("process", name=PROCESS), ours("disk", name=DISK)]
    subjects += [fastapi_redis(name=REDIS)] if runner.bench.tools.redis else []
    found = runner.samples("paced", [(subject, load) for subject in subjects])
    p50 = {name: middle([sample.p50_us / 1000 for sample in samples]) for name, samples in found.items()}
    p99 = {name: middle([sample.p99_us / 1000 for sample in samples]) for name, samples in found.items()}
    cpu = {name: middle([sample.cpu_percent for sample in samples]) for name, samples in found.items()}
    what = f"{scale.streams} streams, 20 messages/s each"
    yield compare(9, f"{what}: p50 (ms)", p50.get(PROCESS), MEMORY, p50.get(MEMORY), "<= 3")
    yield compare(9, f"{what}: p50, disk (ms)", p50.get(DISK), MEMORY, p50.get(MEMORY), "")
    yield compare(10, f"{what}: p99 (ms)", p99.get(PROCESS), REDIS, p99.get(REDIS), "<= 1")
    yield compare(10, f"{what}: processor (% of a core)", cpu.get(PROCESS), REDIS, cpu.get(REDIS), "<= 0.6")


def _sse(runner: Runner) -> Iterator[Comparison | None]:
    """As `fanout`, with viewers that read server-sent events; the producer is on a WebSocket."""
    scale = runner.scale
    load = scale.fanout
    subjects = [ours("memory", name=MEMORY, dialect=SSE), ours("process", name=PROCESS, dialect=SSE)]
    if runner.bench.tools.ws:
        dialect = replace(Dialect(), viewer_path="/sse/{s}", viewer_ready=": ready", upgrade=0)
        subjects.append(node("plain", name="Node res.write", dialect=dialect))
    found = runner.samples("sse", [(subject, load) for subject in subjects])
    measure = f"SSE fan-out 1 to {scale.viewers}"
    theirs = ("Node res.write", found.get("Node res.write", ()))
    yield compare_rates(12, f"{measure}, no storage (deliveries/s)", found[MEMORY], theirs, ">= 3")
    yield compare_rates(12, f"{measure}, committed before delivery (deliveries/s)", found[PROCESS], theirs, "")


def _idle(runner: Runner) -> Iterator[Comparison | None]:
    """Connections that do nothing, by how much the server's resident memory grows with them."""
    connections = runner.scale.connections
    load = Load(mode="idle", connections=connections, settle_seconds=runner.scale.settle_seconds)
    subjects = [ours("memory", name=MEMORY, dialect=IDLE), inside_fastapi(name=MOUNTED, dialect=IDLE)]
    if runner.bench.tools.ws:
        subjects.append(node("plain", name=NODE, dialect=replace(Dialect(), viewer_path="/idle")))
    found = runner.samples("idle", [(subject, load) for subject in subjects])
    for part in (1, 5):
        count = connections * part // 5
        each = {
            name: middle([(sample.rss_kb[part] - sample.rss_kb[0]) / count for sample in samples])
            for name, samples in found.items()
        }
        for name, target in ((MEMORY, "<= 5"), (MOUNTED, "<= 25")):
            kind = "standalone" if name == MEMORY else "inside FastAPI"
            measure = f"one of {count} idle connections, {kind} (KB)"
            yield compare(13, measure, each.get(name), "absolute", None, target if part == 5 else "")
            yield compare(13, measure, each.get(name), NODE, each.get(NODE), "")


def _baseline(runner: Runner) -> Iterator[Comparison | None]:
    """Another version of ourselves, on the two scenarios that every message's cost shows in."""
    scale = runner.scale
    if scale.baseline is None:
        return
    ourselves, before = ours("process", name=PROCESS), ours("process", name=BASELINE, checkout=scale.baseline)
    bounds = [f"--quota={whose}_{bound.name}={BEYOND}" for whose in ("owner", "tenant") for bound in fields(Allowance)]
    charged = ours("process", name=CHARGED, options=["--anonymous", *bounds])
    pair = runner.samples("baseline, pair", [(subject, scale.pair) for subject in (ourselves, before, charged)])
    fanout = runner.samples("baseline, fanout", [(subject, scale.fanout) for subject in (ourselves, before)])
    for what, samples, name in (
        ("pair, survives kill -9", pair, PROCESS),
        ("pair, survives kill -9, of a user with bounds", pair, CHARGED),
        ("fanout, survives kill -9", fanout, PROCESS),
    ):
        yield compare_rates(14, f"{what} (messages/s)", samples[name], (BASELINE, samples[BASELINE]), ">= 0.9")


def _fairness(runner: Runner) -> Iterator[Comparison | None]:
    from unbroken.bench.fairness import fairness

    return fairness(runner)


def _replay(runner: Runner) -> Iterator[Comparison | None]:
    from unbroken.bench.replay import replay

    return replay(runner)


SCENARIOS: Final = (
    Scenario("pair", frozenset({1, 4}), _pair),
    Scenario("fanout", frozenset({5, 7}), _fanout),
    Scenario("paced", frozenset({9, 10}), _paced),
    Scenario("replay", frozenset({11}), _replay),
    Scenario("sse", frozenset({12}), _sse),
    Scenario("idle", frozenset({13}), _idle),
    Scenario("baseline", frozenset({14}), _baseline),
    Scenario("fairness", frozenset({15}), _fairness),
)
