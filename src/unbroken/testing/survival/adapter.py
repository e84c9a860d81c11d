"""The adapter: what the survival kit must be able to do with a server, whatever it speaks.

Each server's adapter implements it; the scenarios call nothing else. It carries one request or one connection, never
retries, and never hides what the server did.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import ClassVar, Self

from unbroken.testing.survival.secure import Secure

__all__ = ["Adapter", "Capability", "Complete", "Delivery", "Ended", "LostError", "RefusedError"]


class Capability(StrEnum):
    """What a server claims; what it does not claim is not held against it."""

    RESUME = "resume"
    """A subscription can begin behind any message that an earlier one delivered with a cursor."""
    IDEMPOTENT_APPEND = "idempotent_append"
    """An append that is sent again with its number takes effect once."""
    DURABLE_ACK = "durable_ack"
    """What was acknowledged survives `kill -9`."""
    MANY_OBSERVERS = "many_observers"
    """Several may watch one stream."""
    TERMINAL_EVENT = "terminal_event"
    """Everybody who watches is told when a stream has ended, also who comes later."""
    DELETE = "delete"
    """A stream can be deleted; the kit then leaves none behind."""


class LostError(Exception):
    """The connection was lost or no usable answer came: nobody knows what took effect."""


class RefusedError(Exception):
    """The server said no: what was asked had no effect."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it arrived.

    `cursor` is what a later subscription begins behind, empty where the server gives none at this message; `position`
    is the message's place, from 1 without holes, or 0 where the server does not tell.
    """

    payload: str
    cursor: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream's end as it was told: nothing follows."""

    state: str


@dataclass(frozen=True, slots=True)
class Complete:
    """A whole stream, read at once; `state` is how it ended, empty where it has not or nobody says."""

    deliveries: tuple[Delivery, ...]
    state: str = ""


class Adapter(abc.ABC):
    """One way to a server at `url`; use it as an asynchronous context manager.

    Every method raises `LostError` where the outcome is unknown and `RefusedError` where there was no effect. An
    adapter for a server of your own derives from this class and is named as `package.module:Class`.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    secure: Secure | None = None
    """How the server proves who it is; None without TLS. Set before the adapter is entered; `url` is a fault proxy's."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abc.abstractmethod
    async def create(self, stream: str) -> None:
        """Make an empty stream."""

    @abc.abstractmethod
    async def append(self, stream: str, payload: str, *, producer: str, number: int) -> int:
        """Append one message; returns once it is acknowledged, with its position or 0.

        `number` counts the producer's appends from 0; the same number again is the same append.
        """

    @abc.abstractmethod
    def subscribe(self, stream: str, cursor: str) -> AsyncGenerator[Delivery | Ended, None]:
        """One connection: what follows `cursor` (empty: everything), and what comes.

        Ends behind an `Ended`, or without one when the connection is over.
        """

    @abc.abstractmethod
    async def read_all(self, stream: str) -> Complete:
        """Everything that is there now."""

    async def end(self, stream: str) -> None:
        """End the stream; only asked of servers with `TERMINAL_EVENT`."""
        raise NotImplementedError

    async def delete(self, stream: str) -> None:
        """Delete the stream; only asked of servers with `DELETE`."""
        raise NotImplementedError
