"""A `History` in the making: it is recorded with messages' ids, and gets its positions when the whole stream is known.

Producers and viewers of the kit write into it. Where a server tells positions, they are judged as told.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from unbroken.testing.history import History
from unbroken.testing.history_events import Deliver, Event, Open
from unbroken.testing.survival.adapter import Complete, Delivery

__all__ = ["Recording", "id_of"]


def id_of(payload: str) -> str:
    """What makes a payload one message: all before its first colon."""
    return payload.split(":", 1)[0]


class Recording:
    """What happened to one stream."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.history = History(now=now)
        self.told = True
        """Whether every delivery so far came with its position."""
        self._opened: dict[int, str] = {}

    def open(self, observer: str, behind: Delivery | None) -> None:
        """A connection begins behind a message that was delivered."""
        if behind is not None:
            self._opened[len(self.history.events)] = id_of(behind.payload)
        self.history.open(observer, 0 if behind is None else behind.position)

    def deliver(self, observer: str, delivery: Delivery) -> None:
        self.told = self.told and delivery.position > 0
        self.history.deliver(observer, delivery.position, id_of(delivery.payload), delivery.payload)

    def finished(self, complete: Complete, state: str) -> History:
        """The history with the final read in it, ready to be judged."""
        told = self.told and all(delivery.position > 0 for delivery in complete.deliveries)
        rows = [
            (delivery.position if told else place, id_of(delivery.payload), delivery.payload)
            for place, delivery in enumerate(complete.deliveries, 1)
        ]
        if not told:
            self._place({id: place for place, id, _ in reversed(rows)})
        self.told = told
        self.history.final(rows, state=state)
        return self.history

    def _place(self, places: dict[str, int]) -> None:
        """Give every delivery the place of its message in the final read; what is not there any more comes behind."""
        events: list[Event] = []
        for number, event in enumerate(self.history.events):
            match event:
                case Deliver(_, _, id):
                    place = places.setdefault(id, len(places) + 1)
                    events.append(msgspec.structs.replace(event, position=place))
                case Open() if number in self._opened:
                    place = places.setdefault(self._opened[number], len(places) + 1)
                    events.append(msgspec.structs.replace(event, cursor=place))
                case _:
                    events.append(event)
        self.history.events = events
