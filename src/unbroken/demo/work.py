"""Tasks of the demonstration: a report that goes on after a crash, and a question that waits for its answer.

`unbroken demo` gives this module to its server; the same could stand in an application of anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from unbroken.runs.context import RunContext
from unbroken.runs.task import TaskOptions, task

__all__ = ["report", "survey"]


@task(options=TaskOptions(title="Write a report"))
async def report(run: RunContext, pages: int = 60, seconds_per_page: float = 1.0) -> AsyncIterator[str]:
    """Write a page a second. Kill the server in the middle: it goes on at the page where it was."""
    for page in range((run.checkpoint_state or 0) + 1, pages + 1):
        await run.progress(page, pages, f"writing page {page}")
        await asyncio.sleep(seconds_per_page)
        yield f"Page {page}: nothing of it is lost, and nothing is written twice.\n"
        await run.checkpoint(page)


@task(options=TaskOptions(title="Ask a question"))
async def survey(run: RunContext) -> str:
    """Ask which colour is the best, and wait for the answer, over every reload and restart."""
    await run.checkpoint("asked")
    colours = ["green", "red", "blue"]
    answer = await run.ask({"message": "Which colour is the best?", "schema": {"type": "string", "enum": colours}})
    return f"The best colour is {answer}."
