"""Where a call stands, from what its stream holds: what to do after a crash. Pure."""

from __future__ import annotations

import msgspec

from unbroken.mcp.questions import saved_round
from unbroken.runs.catalog import Recovery
from unbroken.runs.history import History

__all__ = ["SavedTask", "recovery_of", "saved_task"]


class SavedTask(msgspec.Struct, frozen=True, rename="camel"):
    """A task of the server, as its `task` message holds it."""

    task_id: str
    poll_interval_ms: float | None = None
    ttl_ms: float | None = None
    status: str = "working"


class _Sent(msgspec.Struct, frozen=True):
    attempt: int
    repeatable: bool = False


def saved_task(history: History) -> SavedTask | None:
    """The task that the server made of the call, if it did."""
    body = history.latest.get("task")
    return None if body is None else msgspec.json.decode(body, type=SavedTask)


def recovery_of(history: History) -> Recovery:
    """A task is asked again, an open question waits on; what was sent and not answered goes on only if it may be repeated."""
    if saved_task(history) is not None or saved_round(history) is not None:
        return Recovery(resume=True)
    body = history.latest.get("sent")
    sent = None if body is None else msgspec.json.decode(body, type=_Sent)
    if sent is None or sent.attempt < history.started:
        return Recovery(resume=True)  # nothing was sent, or its outcome was known and allowed another execution
    return Recovery(resume=sent.repeatable, may_have_run=True)
