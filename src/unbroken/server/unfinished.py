"""Frames of which only a part has arrived, over all WebSockets: how many bytes they hold, and for how long.

Each socket notes at the end of a read what its parser keeps; there is one `Unfinished` for a server, which lets go of who
takes too much or too long. It knows sizes and times, never contents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from unbroken.errors import OverloadedError

if TYPE_CHECKING:
    from unbroken.limits import Limits

__all__ = ["Receiver", "Unfinished"]


class Receiver(Protocol):
    """One WebSocket, as far as it concerns its unfinished frame."""

    @property
    def owner(self) -> tuple[str, str]:
        """Whose connection it is: the tenant and the subject."""
        ...

    @property
    def excused(self) -> bool:
        """Whether nothing is read from it for now, for reasons of our own."""
        ...

    def give_up(self, error: OverloadedError | None) -> None:
        """Let go of the frame and of the connection, because of `error` or (None) because it took too long."""
        ...


class _Part:
    __slots__ = ("bytes", "since")

    def __init__(self, since: float) -> None:
        self.bytes = 0
        self.since = since


class Unfinished:
    """The unfinished frames of one server. Belongs to one event loop."""

    def __init__(self, limits: Limits, *, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        self._parts: dict[Receiver, _Part] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._parts)

    def note(self, receiver: Receiver, size_bytes: int, *, fresh: bool) -> None:
        """So much of a frame is there now; `fresh` when it is another one than at the last time. 0: none is underway."""
        part = self._parts.get(receiver)
        if not size_bytes:
            self.forget(receiver)
            return
        if part is None:
            part = self._parts[receiver] = _Part(self._now())
        elif fresh:
            part.since = self._now()
        self.bytes += size_bytes - part.bytes
        part.bytes = size_bytes
        while self.bytes > self._limits.unfinished_frames_bytes_max:
            self._give_up(
                self._dispensable(),
                OverloadedError("too much of unfinished frames", limit="unfinished_frames_bytes_max"),
            )

    def forget(self, receiver: Receiver) -> None:
        """It holds nothing any more. Idempotent."""
        part = self._parts.pop(receiver, None)
        if part is not None:
            self.bytes -= part.bytes

    def check(self, *, excused: bool = False) -> None:
        """Give up the frames that have been underway for too long; with `excused` nobody could be heard until now."""
        now = self._now()
        for receiver, part in list(self._parts.items()):
            if excused or receiver.excused:
                part.since = now
            elif now - part.since > self._limits.frame_seconds_max:
                self._give_up(receiver, None)

    def _give_up(self, receiver: Receiver, error: OverloadedError | None) -> None:
        self.forget(receiver)
        receiver.give_up(error)

    def _dispensable(self) -> Receiver:
        """Of the owner that takes most, of its larger frames, the one that comes slowest."""
        owners: dict[tuple[str, str], list[tuple[Receiver, _Part]]] = {}
        for receiver, part in self._parts.items():
            owners.setdefault(receiver.owner, []).append((receiver, part))
        totals = {owner: sum(part.bytes for _, part in parts) for owner, parts in owners.items()}
        owner = max(totals, key=totals.__getitem__)
        parts, now = owners[owner], self._now()
        large = [(receiver, part) for receiver, part in parts if part.bytes * len(parts) >= totals[owner]]
        return min(large, key=lambda found: found[1].bytes / (now - found[1].since + 1))[0]
