"""What each kind of fault does to a scenario, always by progress and never by the clock.

The runner starts `apply` beside the traffic. Each counts in `stage.bites` how often it really bit.
"""

from __future__ import annotations

import asyncio
import signal

from unbroken.testing.survival.actors import Producer, Watcher, payload_of
from unbroken.testing.survival.scenario import FaultKind
from unbroken.testing.survival.stage import Stage
from unbroken.testing.toxics import Direction, Latency, ResetPeer, Slicer

__all__ = ["after_end", "apply", "late_watchers"]

CURSORS_AT_A_TIME = 8


async def apply(stage: Stage) -> None:
    """Carry out the fault while messages flow; returns when it has bitten as often as it should."""
    match stage.scenario.fault:
        case FaultKind.CUT:
            await _cut(stage)
        case FaultKind.STALL:
            await _stall(stage)
        case FaultKind.KILL:
            await _kill(stage)
        case FaultKind.LOSE_ANSWER:
            await _lose_answers(stage)
        case FaultKind.WEATHER:
            await _weather(stage)
        case FaultKind.HANG_UP:
            await _hang_ups(stage)
        case FaultKind.NONE | FaultKind.LATE | FaultKind.APPEND_AFTER_END | FaultKind.EVERY_CURSOR:
            pass
    stage.progress.fault_over = True
    stage.progress.tell()


async def _cut(stage: Stage) -> None:
    """Reset the connection that carries data after a few bytes more; again when something has arrived since."""
    near, progress = stage.routes.near, stage.progress
    for _ in range(stage.scenario.times):
        before = sum(progress.seen.values())
        await progress.until(lambda: sum(progress.seen.values()) > before)  # noqa: B023 - awaited at once
        after = stage.random.randint(1, 2 * stage.scenario.payload_bytes)
        reset = near.add(ResetPeer(), direction=Direction.DOWNSTREAM, after_bytes=after, times=1)
        await reset.bitten()
        stage.bites += 1


async def _stall(stage: Stage) -> None:
    """Nothing reaches the first viewer until the others are far ahead."""
    progress, slow = stage.progress, stage.watchers[0].name
    others = [watcher.name for watcher in stage.watchers[1:]]
    await progress.until(lambda: progress.seen.get(slow, 0) >= 3)
    held = stage.routes.near.hold()
    await progress.until(lambda: progress.slowest(others) >= stage.scenario.messages - 5)
    if held.bites and progress.slowest(others) > progress.seen.get(slow, 0) + 5:
        stage.bites += 1
    held.remove()


async def _kill(stage: Stage) -> None:
    """SIGKILL at moments spread over the stream, and a new start with what is on disk."""
    target, progress = stage.target, stage.progress
    assert target.launcher is not None
    for number in range(stage.scenario.times):
        wanted = stage.scenario.messages * (number + 1) // (stage.scenario.times + 1)
        await progress.until(lambda: progress.acknowledged >= wanted)  # noqa: B023 - awaited at once
        progress.restarting = True
        try:
            await target.launcher.stop(signal.SIGKILL)
            await target.launcher.start(target.port, target.directory)
        finally:
            progress.restarting = False
        stage.bites += 1


async def _lose_answers(stage: Stage) -> None:
    """The request goes through, its answer does not."""
    far, progress = stage.routes.far, stage.progress
    for _ in range(stage.scenario.times):
        before = progress.acknowledged
        await progress.until(lambda: progress.acknowledged > before + 2)  # noqa: B023 - awaited at once
        reset = far.add(ResetPeer(), direction=Direction.DOWNSTREAM, times=1)
        await reset.bitten()
        stage.bites += 1


async def _weather(stage: Stage) -> None:
    """On both ways, from the beginning to the end of the stream."""
    for proxy in (stage.routes.near, stage.routes.far):
        proxy.add(Latency(0.004, jitter_seconds=0.004))
        proxy.add(Slicer(100, variation_bytes=80))
    wanted = stage.scenario.messages
    await stage.progress.until(lambda: stage.progress.acknowledged >= wanted - 1)
    bites = stage.routes.near.bites
    stage.bites = min(bites["Latency"], bites["Slicer"])


async def _hang_ups(stage: Stage) -> None:
    """Viewers do it themselves; this waits until each has."""
    await stage.progress.until(lambda: all(watcher.hang_ups >= stage.scenario.times for watcher in stage.watchers))
    stage.bites = sum(watcher.hang_ups for watcher in stage.watchers)


# --- viewers that come later ------------------------------------------------------------------------------------------


async def late_watchers(stage: Stage, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """Viewers that join after so many messages; gives their tasks when the last has come."""
    tasks = []
    for number, count in enumerate(stage.scenario.join):
        await stage.progress.until(lambda: stage.progress.acknowledged >= count)  # noqa: B023 - awaited at once
        watcher = stage.watcher(f"late-{number + 1}")
        tasks.append(group.create_task(watcher.run(last_is_end=not stage.tells_end)))
        if stage.scenario.fault is FaultKind.LATE:
            stage.bites += 1
    return tasks


async def after_end(stage: Stage, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """What is asked of a stream that has ended; the tasks of the viewers that this needs."""
    watchers: list[Watcher] = []
    if stage.scenario.join:
        watchers.append(stage.watcher("after-the-end"))
    if stage.scenario.fault is FaultKind.EVERY_CURSOR:
        first = stage.watchers[0]
        await stage.progress.until(lambda: stage.progress.seen.get(first.name, 0) >= stage.progress.acknowledged)
        for number, delivery in enumerate(first.cursors, 1):
            adapter, recording = stage.routes.viewing, stage.recording
            watcher = Watcher(f"from-{number}", stage.stream, adapter, recording, stage.progress, behind=delivery)
            watchers.append(watcher)
        stage.bites = len(first.cursors)
    if stage.scenario.fault is FaultKind.APPEND_AFTER_END:
        adapter = stage.routes.direct
        late = Producer("too-late", stage.stream, adapter, stage.recording, stage.progress, retries=False)
        await late.append(payload_of("too-late", stage.scenario.payload_bytes, stage.random))
        stage.bites += 1
    limit = asyncio.Semaphore(CURSORS_AT_A_TIME)

    async def watch(watcher: Watcher) -> None:
        async with limit:
            await watcher.run(last_is_end=not stage.tells_end)

    return [group.create_task(watch(watcher)) for watcher in watchers]
