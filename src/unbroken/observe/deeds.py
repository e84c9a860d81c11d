"""Tells the audit log what somebody did to a stream or a session, and how it ended, when it has ended.

Whoever changes what exists puts the change into `Deeds.of`; one server has one `Deeds`. It decides nothing and writes
nothing: `on_deed` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from unbroken.errors import UnbrokenError, UnknownOutcomeError
from unbroken.identity import Principal, Verb
from unbroken.messages import StreamInfo
from unbroken.observe.audit_events import Deed

__all__ = ["Attempt", "Deeds"]

DONE: Final = "done"
UNCHANGED: Final = "unchanged"


@dataclass(slots=True)
class Attempt:
    """What is being done; `changed` is False where there turned out to be nothing to do."""

    changed: bool = True


class Deeds:
    """Every attempt of a principal becomes one `Deed`, told once its outcome is known."""

    def __init__(self) -> None:
        self.on_deed: Callable[[Deed], None] = lambda _deed: None
        """Told of each."""

    @contextmanager
    def of(
        self, by: Principal | None, action: str, stream: StreamInfo | None = None, *, session: str = ""
    ) -> Iterator[Attempt]:
        """`by` does `action` in this block; None is the server itself, of which nothing is told.

        A refusal is told by its code. What is broken off, as by a peer that leaves, may have happened.
        """
        attempt, outcome = Attempt(), UnknownOutcomeError.code
        try:
            yield attempt
            outcome = DONE if attempt.changed else UNCHANGED
        except UnbrokenError as error:
            outcome = error.code
            raise
        finally:
            if by is not None:
                self.on_deed(replace(_deed(by, action, stream), session=session, outcome=outcome))


def _deed(by: Principal, action: str, stream: StreamInfo | None) -> Deed:
    verb = Verb.CANCEL if action == Verb.CANCEL else Verb.MANAGE
    deed = Deed(verb=verb.value, action=action, owner=by.subject, by=by)
    if stream is None:
        return deed
    return replace(deed, stream=stream.name, epoch=stream.epoch, owner=stream.owner)
