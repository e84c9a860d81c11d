"""Who takes part in a scenario: producers, viewers, and the progress that they share.

The runner starts them, faults look at their progress. They record everything and judge nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random

from unbroken.testing.survival.adapter import Adapter, Delivery, Ended, LostError, RefusedError
from unbroken.testing.survival.recording import Recording, id_of

__all__ = ["LAST", "Producer", "Progress", "Watcher", "pause", "payload_of"]

LAST = "last"
"""The id of the message behind which viewers leave, where a server tells no end."""
PAUSE_SECONDS_MIN = 0.02
PAUSE_SECONDS_MAX = 0.5
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789äß€漢😀"
"""Of one to four bytes each: what is cut in the middle of a character shows."""


async def pause(failures: int) -> None:
    """Wait after the n-th failure in a row, longer each time."""
    await asyncio.sleep(min(PAUSE_SECONDS_MIN * 2**failures, PAUSE_SECONDS_MAX))


class Progress:
    """What has happened so far; faults and producers wait for it."""

    def __init__(self) -> None:
        self.begun = 0
        self.acknowledged = 0
        self.seen: dict[str, int] = {}
        self.ended = False
        self.fault_over = False
        self.joined = 0
        self.restarting = False
        self._changed = asyncio.Event()

    @property
    def moved(self) -> int:
        """Grows with everything that is acknowledged or arrives."""
        return self.acknowledged + sum(self.seen.values())

    def tell(self) -> None:
        """Something has changed."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def slowest(self, names: list[str]) -> int:
        """How many messages each of these has at least."""
        return min((self.seen.get(name, 0) for name in names), default=0)


class Producer:
    """Appends one message after the other and knows the outcome of each, or that it is unknown."""

    def __init__(
        self, name: str, stream: str, adapter: Adapter, recording: Recording, progress: Progress, *, retries: bool
    ) -> None:
        self.name = name
        self._stream = stream
        self._adapter = adapter
        self._recording = recording
        self._progress = progress
        self._retries = retries
        self._number = 0

    async def append(self, payload: str) -> bool:
        """Append once, however often it has to be sent; whether it was acknowledged.

        After an unknown outcome it is sent again only where the server claims that this has no second effect.
        """
        history, name = self._recording.history, id_of(payload)
        history.invoke(self.name, name, payload)
        failures = 0
        while True:
            try:
                position = await self._adapter.append(self._stream, payload, producer=self.name, number=self._number)
            except LostError:
                failures += 1
                await pause(failures)
                if self._retries:
                    continue
                history.unknown(name)
            except RefusedError:
                if not failures:
                    history.fail(name)
                    return False
                history.unknown(name)
            else:
                history.ack(name, position)
                self._progress.acknowledged += 1
            self._number += 1
            self._progress.tell()
            return failures == 0 or self._retries


class Watcher:
    """A viewer that comes back behind its last cursor, however often it is cut off, until it is told of the end."""

    def __init__(
        self,
        name: str,
        stream: str,
        adapter: Adapter,
        recording: Recording,
        progress: Progress,
        *,
        behind: Delivery | None = None,
    ) -> None:
        self.name = name
        self.every = 0
        """After how many messages it hangs up by itself; 0 for never."""
        self.hang_ups = 0
        self.cursors: list[Delivery] = []
        self._stream = stream
        self._adapter = adapter
        self._recording = recording
        self._progress = progress
        self._behind = behind
        self._over = False

    async def run(self, *, last_is_end: bool) -> None:
        """Watch to the end; with `last_is_end` that is the message `last`."""
        failures = 0
        while not self._over:
            before = self._progress.seen.get(self.name, 0)
            with contextlib.suppress(LostError, RefusedError):
                await self._connection(last_is_end=last_is_end)
            failures = 0 if self._progress.seen.get(self.name, 0) > before else failures + 1
            if failures:
                await pause(failures)

    async def _connection(self, *, last_is_end: bool) -> None:
        """One subscription until it is over."""
        self._recording.open(self.name, self._behind)
        cursor = "" if self._behind is None else self._behind.cursor
        count = 0
        async with contextlib.aclosing(self._adapter.subscribe(self._stream, cursor)) as items:
            async for item in items:
                if isinstance(item, Ended):
                    self._finish(item.state)
                    return
                self._take(item)
                count += 1
                if last_is_end and id_of(item.payload) == LAST:
                    self._finish(LAST)
                    return
                if self.every and count >= self.every and item.cursor:
                    self.hang_ups += 1
                    return

    def _take(self, delivery: Delivery) -> None:
        self._recording.deliver(self.name, delivery)
        if delivery.cursor:
            self._behind = delivery
            self.cursors.append(delivery)
        self._progress.seen[self.name] = self._progress.seen.get(self.name, 0) + 1
        self._progress.tell()

    def _finish(self, state: str) -> None:
        self._over = True
        self._recording.history.end(self.name, state)
        self._progress.tell()


def payload_of(name: str, size: int, random: Random) -> str:
    """A payload that is this message's and no other's."""
    return f"{name}:{''.join(random.choices(LETTERS, k=max(size - len(name) - 1, 1)))}"
