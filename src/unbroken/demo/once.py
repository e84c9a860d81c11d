"""The unattended demonstration: streams, viewers, and a server killed again and again in mid-stream, then the count.

`unbroken demo --once` runs it. What was acknowledged to the producers is held against what each viewer saw; a run in which
nothing was killed proves nothing and fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from unbroken.cli.output import note, print_table
from unbroken.client import Client
from unbroken.demo import scenes
from unbroken.demo.server import DemoServer

__all__ = ["Report", "StreamReport", "Watch", "judge", "run_once"]

ANSWER: Final = "demo/answer"
TASK: Final = "demo/task"
PROGRAM: Final = "demo/program"
STREAMS: Final = (ANSWER, TASK, PROGRAM)
VIEWERS: Final = 3
KILLS: Final = 3
STEPS: Final = 120
LINES: Final = 150
SECONDS_MAX: Final = 90.0


@dataclass(slots=True)
class Watch:
    """What one viewer saw of one stream, over all its connections."""

    seen: list[tuple[int, str]] = field(default_factory=list)
    stdout: list[str] = field(default_factory=list)
    state: str = ""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The verdict on one stream over all its viewers."""

    stream: str
    messages: int
    viewers: int
    lost: int
    doubled: int
    state: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on the whole run."""

    streams: tuple[StreamReport, ...]
    kills: int

    @property
    def lost(self) -> int:
        return sum(report.lost for report in self.streams)

    @property
    def doubled(self) -> int:
        return sum(report.doubled for report in self.streams)

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled or otherwise wrong, and the faults really happened."""
        right = all(not report.faults and report.state == "completed" for report in self.streams)
        return right and not self.lost and not self.doubled and self.kills >= KILLS


def judge(stream: str, acknowledged: dict[int, str], head: int, watches: list[Watch]) -> StreamReport:
    """Hold what the viewers of a stream saw against what its producer was acknowledged, and against its head."""
    lost = doubled = 0
    faults: set[str] = set()
    for watch in watches:
        counts = Counter(seq for seq, _ in watch.seen)
        lost += len((acknowledged.keys() | set(range(1, head + 1))) - counts.keys())
        doubled += sum(count - 1 for count in counts.values())
        if [seq for seq, _ in watch.seen] != sorted(counts):
            faults.add("out of order")
        if any(seq in acknowledged and acknowledged[seq] != text for seq, text in watch.seen):
            faults.add("not what was appended")
        if any(seq > head for seq in counts):
            faults.add("more than is stored")
    states = {watch.state for watch in watches}
    state = states.pop() if len(states) == 1 else "/".join(sorted(states))
    return StreamReport(stream, head, len(watches), lost, doubled, state, tuple(sorted(faults)))


class _Once:
    """One unattended run."""

    def __init__(self, server: DemoServer) -> None:
        self._server = server
        self._acknowledged: dict[str, dict[int, str]] = {stream: {} for stream in STREAMS}
        self._watches: dict[str, list[Watch]] = {stream: [] for stream in STREAMS}
        self._progress = asyncio.Event()
        self._producers_left = 0

    async def run(self) -> Report:
        async with asyncio.timeout(SECONDS_MAX), Client(self._server.url) as client:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._kill_in_mid_stream())
                group.create_task(scenes.answer(client, ANSWER, pause=0.01, repeat=2, sent=self._sent))
                group.create_task(scenes.task(client, TASK, steps=STEPS, pause=0.05, sent=self._sent))
                group.create_task(scenes.program(self._server.url, PROGRAM, lines=LINES, pause=0.04))
                for _ in range(VIEWERS):
                    group.create_task(self._view())
            reports = [await self._report(client, stream) for stream in STREAMS]
        return Report(tuple(reports), self._server.kills)

    def _sent(self, stream: str, seq: int, text: str) -> None:
        self._acknowledged[stream][seq] = text
        self._progress.set()

    async def _kill_in_mid_stream(self) -> None:
        """Kill and restart the server whenever another quarter of the answer is acknowledged."""
        total = len(scenes.words(2))
        for number in range(1, KILLS + 1):
            await self._answer_reaches(number * total // (KILLS + 1))
            await self._server.kill()
            note(f"server killed (SIGKILL) after {len(self._acknowledged[ANSWER])} of {total} words")
            await self._server.start()

    async def _answer_reaches(self, count: int) -> None:
        while len(self._acknowledged[ANSWER]) < count:
            self._progress.clear()
            await self._progress.wait()

    async def _view(self) -> None:
        """One viewer, with a connection of its own, of every stream."""
        async with Client(self._server.url) as client, asyncio.TaskGroup() as group:
            for stream in STREAMS:
                watch = Watch()
                self._watches[stream].append(watch)
                group.create_task(self._follow(client, stream, watch))

    async def _follow(self, client: Client, stream: str, watch: Watch) -> None:
        await self._exists(client, stream)
        messages = client.follow(stream)
        async for received in messages:
            watch.seen.append((received.seq, received.text or ""))
            if received.kind == "stdout":
                watch.stdout.append(received.text or "")
        assert messages.state is not None
        watch.state = messages.state.state

    @staticmethod
    async def _exists(client: Client, stream: str) -> None:
        """Wait until the stream's producer has made it."""
        while stream not in {view.stream for view in (await client.list(prefix=stream)).streams}:  # noqa: ASYNC110 - no event tells of a birth
            await asyncio.sleep(0.05)

    async def _report(self, client: Client, stream: str) -> StreamReport:
        view = await client.state(stream)
        watches = self._watches[stream]
        report = judge(stream, self._acknowledged[stream], view.head, watches)
        faults = list(report.faults)
        if not (await client.verify(stream)).ok:
            faults.append("hash chain broken")
        if stream == PROGRAM and any("".join(watch.stdout) != scenes.program_output(LINES) for watch in watches):
            faults.append("not what the program wrote")
        return StreamReport(
            stream, report.messages, report.viewers, report.lost, report.doubled, report.state, tuple(faults)
        )


async def run_once(directory: Path) -> Report:
    """Run it with a server of its own in `directory`; the report also goes to stdout."""
    async with DemoServer(directory) as server:
        note(f"server at {server.url}; {VIEWERS} viewers follow {len(STREAMS)} streams")
        report = await _Once(server).run()
    rows = [
        [r.stream, str(r.messages), str(r.viewers), str(r.lost), str(r.doubled), r.state, ", ".join(r.faults) or "-"]
        for r in report.streams
    ]
    print_table(["STREAM", "MESSAGES", "VIEWERS", "LOST", "DOUBLED", "STATE", "FAULTS"], rows, colour=5)
    sys.stdout.write(f"server killed {report.kills} times in mid-stream and restarted\n")
    sys.stdout.write(f"{report.lost} lost, {report.doubled} doubled: {'passed' if report.passed else 'FAILED'}\n")
    return report
