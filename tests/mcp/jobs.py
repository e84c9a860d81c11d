"""The tasks that the conformance suite's tools start, as its scenarios describe them."""

from __future__ import annotations

import asyncio

from unbroken import RunContext, task
from unbroken.messages import StreamState
from unbroken.runs.context import RunEnded


@task
async def slow_compute(seconds: float = 0.0, label: str = "") -> str:
    """Take so many seconds."""
    await asyncio.sleep(seconds)
    return f"computed {label}"


@task
async def failing_job() -> str:
    """Fail as work fails."""
    await asyncio.sleep(0.1)
    raise ValueError("on purpose")


@task
async def protocol_error_job() -> str:
    """End as a run ends whose process has died."""
    raise RunEnded(StreamState.INTERRUPTED, {"error": "on purpose"})


@task
async def confirm_delete(run: RunContext, filename: str = "") -> str:
    """Ask once."""
    schema = {"type": "object", "properties": {"confirm": {"type": "boolean"}}, "required": ["confirm"]}
    answer = await run.ask({"message": f"Delete {filename}?", "schema": schema})
    return f"answered {answer}"


@task
async def multi_input(run: RunContext) -> str:
    """Ask twice at one time."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(run.ask({"message": f"The {which} name?"}, id=which)) for which in ("first", "last")]
    return f"answered {[one.result() for one in asked]}"
