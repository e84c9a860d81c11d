"""A call that the server made a task of: written down before it is first asked for, and asked for by its id until it ends.

Another process can go on with it. Cancelling the run for good cancels the task; a run that goes on elsewhere leaves it alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from unbroken.mcp.failures import Failure, FailureClass
from unbroken.mcp.questions import answer_of, question_of
from unbroken.mcp.recovery import saved_task
from unbroken.mcp.redaction import Redaction
from unbroken.mcp.results import completed
from unbroken.mcp.tools import Tool
from unbroken.messages import StreamState
from unbroken.runs.context import RunContext, RunEnded

if TYPE_CHECKING:
    from unbroken.mcp.sdk import Session

__all__ = ["Following"]

CANCEL_SECONDS: Final = 2.0
POLL_MS: Final = 1_000.0
ID_CHARACTERS_MAX: Final = 1_000
Object = dict[str, object]
Ask = Callable[[str, Object], Awaitable[object]]


class Following:
    """Follows one task to its end."""

    def __init__(self, context: RunContext, session: Session, ask: Ask, redact: Redaction) -> None:
        self._context = context
        self._redact = redact
        self._session = session
        self._ask = ask
        self._id = ""
        self._status_message = ""
        self._answered: set[str] = set()

    async def run(self, tool: Tool | None, created: Object | None) -> RunEnded:
        """The run's end, from the task that `created` describes or that the stream holds."""
        context = self._context
        if created is not None:
            self._id = _id_of(created)
            await context.put("task", {**_stored(created, context.attempt), "taskId": self._redact(self._id)})
            await context.durable()
        task = saved_task(context.history)
        assert task is not None
        self._id = self._id or task.task_id
        interval = task.poll_interval_ms
        try:
            with context.waiting():  # every look is bounded in time, so silence of the task is no silence of the server
                while True:
                    await asyncio.sleep(self._pause(interval))
                    detail = await self._look()
                    interval = _number(detail.get("pollIntervalMs")) or interval
                    ended = await self._take(tool, detail)
                    if ended is not None:
                        return ended
        except asyncio.CancelledError:
            if context.ending in {StreamState.CANCELLED, StreamState.TIMED_OUT}:
                await self._cancel()
            raise

    def _pause(self, interval_ms: float | None) -> float:
        limits = self._context.limits
        seconds = (POLL_MS if interval_ms is None else interval_ms) / 1000
        return min(max(seconds, limits.mcp_poll_seconds_min), limits.mcp_poll_seconds_max)

    async def _look(self) -> Object:
        """What the server says of the task; faults that may pass are waited out, a few in a row."""
        for failures in range(self._context.limits.mcp_retries_max + 1):
            try:
                return await self._session.request("tasks/get", {"taskId": self._id})
            except Failure as failure:
                if not failure.passing or failures == self._context.limits.mcp_retries_max:
                    raise
                if self._session.transport != "http":
                    raise
                await asyncio.sleep(max(2.0**failures, failure.retry_after or 0.0))
        raise AssertionError

    async def _take(self, tool: Tool | None, detail: Object) -> RunEnded | None:
        """Store what is new, answer what is asked; the end of the run when the task has ended."""
        status = detail.get("status")
        message = str(detail.get("statusMessage") or "")[: self._context.limits.run_log_bytes_max]
        if message and message != self._status_message:
            self._status_message = message
            await self._context.put("progress", {"message": message, "status": status})
        if status == "completed":
            result = detail.get("result")
            return await completed(self._context, tool, result if isinstance(result, dict) else {})
        if status == "failed":
            error = detail.get("error")
            error = error if isinstance(error, Mapping) else {}
            code = error.get("code")
            raise Failure(
                kind=FailureClass.SERVER_ERROR,
                message=str(error.get("message") or message or "the task failed"),
                code=code if isinstance(code, int) else None,
                answered=True,
            )
        if status == "cancelled":
            return RunEnded(StreamState.CANCELLED, {"by": "server", "message": message})
        if status == "input_required":
            await self._answer(detail.get("inputRequests"))
        elif status != "working":
            raise Failure(kind=FailureClass.BAD_RESPONSE, message="the task has no status that is known", answered=True)
        return None

    async def _answer(self, requests: object) -> None:
        """Ask what has not been asked, and give the answers to the server."""
        open_ = (
            {key: value for key, value in requests.items() if key not in self._answered}
            if isinstance(requests, dict)
            else {}
        )
        for key, request in list(open_.items())[: self._context.limits.mcp_input_requests_max]:
            identity = f"task-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
            response = await self._ask(identity, question_of(request))
            params: Object = {"taskId": self._id, "inputResponses": {key: answer_of(request, response)}}
            await self._session.request("tasks/update", params)
            self._answered.add(key)

    async def _cancel(self) -> None:
        """Tell the server that nobody wants the outcome any more."""
        with suppress(Failure, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._session.request("tasks/cancel", {"taskId": self._id})


def _id_of(created: Object) -> str:
    identity = created.get("taskId")
    if not isinstance(identity, str) or not 0 < len(identity) <= ID_CHARACTERS_MAX:
        raise Failure(kind=FailureClass.BAD_RESPONSE, message="the task has no usable id", answered=True)
    return identity


def _stored(created: Object, attempt: int) -> Object:
    return {
        "attempt": attempt,
        "status": str(created.get("status") or "working")[:50],
        "pollIntervalMs": _number(created.get("pollIntervalMs")),
        "ttlMs": _number(created.get("ttlMs")),
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None
