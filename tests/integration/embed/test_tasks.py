"""Tasks inside an application: started by its own code, run on by its own process, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.embed.host import until
from tests.support import tasks as module
from unbroken import RunContext, Unbroken
from unbroken.errors import ConfigurationError, InvalidError
from unbroken.messages import StreamState
from unbroken.runs.spec import RunOptions

pytestmark = pytest.mark.anyio


async def test_a_decorated_function_runs_detached_and_once_for_each_key(tmp_path: Path) -> None:
    unbroken = Unbroken(f"sqlite:///{tmp_path / 'a.db'}")
    calls = 0

    @unbroken.task
    async def report(run: RunContext, pages: int) -> AsyncIterator[str]:
        """Write a report."""
        nonlocal calls
        calls += 1
        for page in range(1, pages + 1):
            await run.progress(page, pages)
            yield f"page {page}\n"

    async with unbroken.lifespan():
        started = await unbroken.run(report, {"pages": 3}, RunOptions(key="k", session="s"))
        again = await unbroken.run(report, {"pages": 3}, RunOptions(key="k", session="s"))
        assert (started.id, started.session) == (again.id, "s")
        texts = [one.message.text async for one in unbroken.follow(started.name) if one.message.kind == "text"]
        assert texts == ["page 1\n", "page 2\n", "page 3\n"]
        assert (await unbroken.state(started.name)).state is StreamState.COMPLETED
        assert calls == 1
        with pytest.raises(InvalidError):
            await unbroken.run(report, {"pages": "many"})


async def test_tasks_of_a_module_can_be_run_and_go_on_after_a_restart_of_the_application(tmp_path: Path) -> None:
    unbroken = Unbroken(f"sqlite:///{tmp_path / 'a.db'}")
    unbroken.include_tasks("tests.support.tasks")
    async with unbroken.lifespan():
        await unbroken.run(module.count, {"upto": 50, "pause": 0.01}, RunOptions(name="r"))

        async def begun() -> bool:
            return (await unbroken.state("r")).head > 20

        while not await begun():
            await until("a commit", lambda: True)
    async with unbroken.lifespan():
        texts = [int(one.message.text or "") async for one in unbroken.follow("r") if one.message.kind == "text"]
        assert texts == list(range(1, 51))
        assert (await unbroken.state("r")).state is StreamState.COMPLETED


def test_what_is_no_task_is_refused_when_it_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no task"):
        Unbroken("memory:").include_tasks("tests.support.server")
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        Unbroken("memory:").include_tasks("tests.support.nobody")
