"""Tasks of the MCP server's tests: work that stands still in its middle until it is told to go on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from unbroken import RunContext, task


@task
async def gated(run: RunContext, upto: int) -> AsyncIterator[str]:
    """Yield the first half of the numbers up to `upto`, ask, and yield the others."""
    for number in range(1, upto // 2 + 1):
        yield f"{number}\n"
    await run.ask({"message": "Go on?"})
    for number in range(upto // 2 + 1, upto + 1):
        yield f"{number}\n"
