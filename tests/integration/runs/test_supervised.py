"""Runs that the server executes: started over any face, detached, always ended, resumed, really stopped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import tasks as module
from tests.support.inprocess import Served, served
from unbroken.auth.stored import NewToken
from unbroken.errors import QuotaError
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamState
from unbroken.runs.catalog import Catalog
from unbroken.runs.environment import SECRETS
from unbroken.runs.spec import RunRequest
from unbroken.runs.task import Task, Tasks
from unbroken.settings import Settings
from unbroken.store.base import Created

pytestmark = pytest.mark.anyio

LIMITS = replace(DEFAULT_LIMITS, lease_seconds=1.5, run_poll_seconds=0.1, run_takeover_seconds=0.5)
CEILING_SECONDS = 60.0


def all_tasks() -> Catalog:
    return Catalog([Tasks(value for value in vars(module).values() if isinstance(value, Task))])


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served(limits=LIMITS, catalog=all_tasks()) as running:
        yield running


async def start(server: Served, task: str, name: str = "r", status: int = 201, **arguments: Any) -> Any:
    return await server.answer(status, "POST", "/v1/runs", json={"task": task, "arguments": arguments, "name": name})


async def state(server: Served, name: str = "r") -> Any:
    return await server.answer(200, "GET", f"/v1/streams/{name}")


async def ended(server: Served, name: str = "r") -> Any:
    """The stream when it has ended."""
    async with asyncio.timeout(CEILING_SECONDS):
        while (view := await state(server, name)).get("ended") is None:
            await asyncio.sleep(0.01)
    return view


async def messages(server: Served, name: str = "r") -> list[Any]:
    return list((await server.answer(200, "GET", f"/v1/messages/{name}"))["messages"])


async def until(server: Served, kind: str, name: str = "r") -> Any:
    """Wait for a message of this kind."""
    async with asyncio.timeout(CEILING_SECONDS):
        while not (found := [one for one in await messages(server, name) if one.get("kind") == kind]):
            await asyncio.sleep(0.01)
    return found[0]


def texts(found: list[Any]) -> str:
    return "".join(one["text"] for one in found if "text" in one)


@pytest.mark.parametrize("task", ["count", "threaded", "processed"])
async def test_a_task_runs_to_its_end_wherever_it_is_executed(server: Served, task: str) -> None:
    view = await start(server, task, upto=5)
    assert (view["kind"], view["run"]["type"], view["run"]["name"]) == ("task", "task", task)
    assert (await ended(server))["state"] == "completed"
    found = await messages(server)
    assert texts(found) == "1\n2\n3\n4\n5\n"
    kinds = [one["kind"] for one in found]
    assert kinds[:2] == ["accepted", "started"]
    assert kinds.count("checkpoint") == 5
    assert [one["json"] for one in found if one["kind"] == "progress"][-1]["progress"] == 5
    assert found[0]["json"]["arguments"] == {"upto": 5}


async def test_what_a_function_returns_is_its_result(server: Served) -> None:
    await start(server, "add", left=2)
    assert (await ended(server))["state"] == "completed"
    assert (await messages(server))[-1]["json"] == {"value": 3}


async def test_a_failure_is_told_by_its_kind_only(server: Served) -> None:
    await start(server, "broken")
    view = await ended(server)
    assert (view["state"], view["reason"]) == ("failed", {"error": "ValueError"})
    found = await messages(server)
    assert (found[-1]["kind"], found[-1]["json"]) == ("failed", {"error": "ValueError"})
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("task", "arguments", "error"),
    [
        ("exiting", {}, "SystemExit"),
        ("exiting_thread", {}, "SystemExit"),
        ("panicking", {}, "NoException"),
        ("unspeakable", {}, "TypeError"),
        ("unbearable", {"characters": DEFAULT_LIMITS.message_bytes_max}, "TooLargeError"),
        ("failing_beside", {}, "ValueError"),
        ("unspeakable_progress", {}, "TypeError"),
    ],
)
async def test_whatever_a_task_does_ends_its_own_run_and_no_other(
    server: Served, task: str, arguments: dict[str, Any], error: str
) -> None:
    await start(server, "stuck", "other")
    await until(server, "text", "other")
    await start(server, task, **arguments)
    view = await ended(server)
    assert (view["state"], view["reason"]["error"]) == ("failed", error)
    found = await messages(server)
    assert [one["kind"] for one in found].count("started") == 1
    assert (found[-1]["kind"], found[-1]["json"]["error"]) == ("failed", error)
    assert "s3cret" not in str(found)
    assert (await state(server, "other"))["state"] == "running"


async def test_a_process_that_dies_is_a_failure_with_its_last_words(server: Served) -> None:
    await start(server, "crashing")
    view = await ended(server)
    assert (view["state"], view["reason"]) == ("failed", {"error": "ProcessEnded", "exit_code": 7})
    assert (await messages(server))[-1]["json"]["stderr"] == "out of luck\n"


async def test_a_task_in_a_process_gets_settings_of_the_server_and_none_of_its_secrets(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.upper().startswith("UNBROKEN_")]:
        monkeypatch.delenv(name)
    for name in (*SECRETS, "unbroken_token", "UNBROKEN_STORE"):  # settings know no case
        monkeypatch.setenv(name, "of the server")
    await start(server, "surrounded")
    assert (await ended(server))["state"] == "completed"
    (found,) = [one["json"] for one in await messages(server) if isinstance(one.get("json"), list)]
    assert found == ["UNBROKEN_STORE"]


def test_every_setting_that_is_a_secret_is_known_to_be_one() -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret
    assert {f"UNBROKEN_{name.upper()}" for name in secret} <= SECRETS


@pytest.mark.parametrize("task", ["stuck", "asleep"])
async def test_a_cancel_stops_a_blocked_run_within_a_second_and_says_who_asked(server: Served, task: str) -> None:
    await start(server, task)
    await until(server, "text" if task == "stuck" else "json")
    begun = asyncio.get_running_loop().time()
    await server.answer(202, "POST", "/v1/cancel/r", json={})
    view = await ended(server)
    assert asyncio.get_running_loop().time() - begun < CEILING_SECONDS
    assert (view["state"], view["reason"]) == ("cancelled", {"by": "local"})
    found = await messages(server)
    assert found[-1]["kind"] == "cancelled"
    assert found[2].get("text", "") == "begun" or found[2]["json"]["pid"] > 0, "what there was is kept"


async def test_a_cancel_reaches_the_thread_of_a_task(server: Served, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    await start(server, "blocked", marker=str(marker))
    await until(server, "started")
    await server.answer(202, "POST", "/v1/cancel/r", json={})
    assert (await ended(server))["state"] == "cancelled"
    async with asyncio.timeout(CEILING_SECONDS):
        while not marker.exists():
            await asyncio.sleep(0.01)


async def test_a_repeated_start_attaches_and_other_work_is_refused(server: Served) -> None:
    body = {"task": "add", "arguments": {"left": 1}, "key": "k"}
    first = await server.answer(201, "POST", "/v1/runs", json=body)
    again = await server.answer(200, "POST", "/v1/runs", json=body)
    assert (first["stream"], first["epoch"]) == (again["stream"], again["epoch"])
    other = {**body, "arguments": {"left": 2}}
    await server.problem(409, "already_exists", "POST", "/v1/runs", json=other)
    assert (await ended(server, first["stream"]))["state"] == "completed"
    assert [one["kind"] for one in await messages(server, first["stream"])].count("started") == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid"),
        ({"task": "add", "program": "x"}, 400, "invalid"),
        ({"task": "nobody"}, 404, "unknown_runnable"),
        ({"tool": "t", "server": "s"}, 404, "unknown_runnable"),
        ({"tool": "t"}, 400, "invalid"),
        ({"task": "add", "server": "s"}, 400, "invalid"),
        ({"task": "add", "arguments": []}, 400, "invalid"),
        ({"task": "add", "arguments": {}}, 400, "invalid"),
        ({"task": "add", "arguments": {"left": "x"}}, 400, "invalid"),
        ({"task": "add", "arguments": {"left": 1, "up": 2}}, 400, "invalid"),
        ({"task": "add", "arguments": {"left": 1}, "idle_seconds": 0}, 400, "invalid"),
        ({"task": "add", "arguments": {"left": 1}, "name": "a/../b"}, 400, "invalid"),
        ({"task": "add", "arguments": {"left": 1}, "unknown": 1}, 400, "invalid"),
    ],
)
async def test_a_start_that_makes_no_sense_is_refused_and_nothing_is_left(
    server: Served, body: dict[str, Any], status: int, code: str
) -> None:
    await server.problem(status, code, "POST", "/v1/runs", json=body)
    assert (await server.answer(200, "GET", "/v1/streams"))["streams"] == []


async def test_a_task_that_fails_is_tried_again_as_declared_and_each_message_is_there_once(server: Served) -> None:
    await start(server, "flaky", fails=3)
    assert (await ended(server))["state"] == "completed"
    found = await messages(server)
    assert texts(found) == "1\n2\n3\n4\n5\n"
    kinds = [one["kind"] for one in found]
    assert (kinds.count("started"), kinds.count("retry")) == (4, 3)
    await start(server, "flaky", "worse", fails=4)
    assert (await ended(server, "worse"))["reason"] == {"error": "ConnectionError"}


async def test_a_question_waits_for_its_answer_which_counts_once(server: Served) -> None:
    await start(server, "curious")
    asked = (await until(server, "input_required"))["json"]
    assert (asked["message"], asked["schema"]) == ("Which colour?", {"type": "string"})
    await server.problem(404, "not_found", "POST", "/v1/answer/r", json={"id": "question-9", "response": 1})
    await server.answer(200, "POST", "/v1/answer/r", json={"id": asked["id"], "response": "green"})
    await server.problem(409, "already_exists", "POST", "/v1/answer/r", json={"id": asked["id"], "response": "red"})
    assert (await ended(server))["state"] == "completed"
    found = await messages(server)
    assert found[-1]["json"] == {"value": "you said green"}
    assert [one["json"]["response"] for one in found if one["kind"] == "input"] == ["green"]


@pytest.mark.scenario("SEC-002")
async def test_who_may_answer_and_not_read_is_not_told_the_question(server: Served) -> None:
    schema = {"type": "object", "properties": {"to": {"enum": ["bob's account"]}}, "required": ["to", "the secret"]}
    await start(server, "asking", request={"message": "?", "schema": schema})
    asked = (await until(server, "input_required"))["json"]
    told = []
    for verbs in ({Verb.START}, {Verb.START, Verb.READ}):
        key = await server.services.tokens.make(Principal(), NewToken(grants=(Grant("r", frozenset(verbs)),)))
        headers = {"authorization": f"Bearer {key.secret}"}
        for response in ({"the secret": 1, "to": 1}, {"to": "bob's account"}, 1):
            body = {"id": asked["id"], "response": response}
            problem = await server.problem(400, "invalid", "POST", "/v1/answer/r", json=body, headers=headers)
            told.append((problem["detail"], problem["facts"]))
    assert told[0] == told[1] == told[2], "whatever was wrong"
    assert told[0][1] == {"field": "response"}
    assert "bob's account" in told[3][0]
    assert "the secret" in told[4][0]


async def test_a_question_has_the_id_that_its_answer_needs(server: Served) -> None:
    await start(server, "asking", request={"id": "mine", "message": "?"})
    asked = (await until(server, "input_required"))["json"]
    await server.problem(400, "invalid", "POST", "/v1/answer/r", content=f'{{"id":"{asked["id"]}","response":1e400}}')
    await server.answer(200, "POST", "/v1/answer/r", json={"id": asked["id"], "response": 7})
    assert (await ended(server))["state"] == "completed"
    assert (await messages(server))[-1]["json"] == {"value": 7}
    await start(server, "asking", "long", request={"message": "?"}, called="q" * 201)
    assert (await ended(server, "long"))["reason"] == {"error": "InvalidError", "code": "invalid"}


async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open(server: Served) -> None:
    await start(server, "curious")
    asked = (await until(server, "input_required"))["json"]
    head = (await state(server))["head"]
    for response in (1, None, ["green"], {"colour": "green"}):
        body = {"id": asked["id"], "response": response}
        problem = await server.problem(400, "invalid", "POST", "/v1/answer/r", json=body)
        assert problem["facts"]["field"] == "response"
        assert problem["detail"] == 'the answer: this is not of type "string"'
    assert (await state(server))["head"] == head, "nothing is stored"
    await server.answer(200, "POST", "/v1/answer/r", json={"id": asked["id"], "response": "green"})
    assert (await ended(server))["state"] == "completed"
    assert [one["json"]["response"] for one in await messages(server) if one["kind"] == "input"] == ["green"]


async def test_waiting_for_an_answer_or_in_a_pause_is_no_silence(server: Served) -> None:
    body = {"task": "curious", "name": "asks", "idle_seconds": 0.3}
    await server.answer(201, "POST", "/v1/runs", json=body)
    body = {"task": "plain", "name": "rests", "idle_seconds": 0.3, "arguments": {"upto": 100_000, "pause": 0.01}}
    await server.answer(201, "POST", "/v1/runs", json=body)
    asked = (await until(server, "input_required", "asks"))["json"]
    await until(server, "text", "rests")
    await server.answer(200, "POST", "/v1/pause/rests", json={})
    await asyncio.sleep(1.5)
    assert (await state(server, "rests"))["state"] == "paused"
    await server.answer(200, "POST", "/v1/answer/asks", json={"id": asked["id"], "response": "1"})
    assert (await ended(server, "asks"))["state"] == "completed"
    head = (await state(server, "rests"))["head"]
    await server.answer(200, "POST", "/v1/resume/rests", json={})
    async with asyncio.timeout(CEILING_SECONDS):
        while (await state(server, "rests"))["head"] < head + 5:
            await asyncio.sleep(0.01)


async def test_a_run_that_ended_badly_is_tried_again_as_a_run_of_its_own_once(server: Served) -> None:
    await start(server, "broken")
    await ended(server)
    first = await server.answer(201, "POST", "/v1/retry/r", json={})
    assert (first["stream"], first["run"]["retry_of"]) == ("r.2", "r")
    await server.answer(200, "POST", "/v1/retry/r", json={})
    await ended(server, "r.2")
    assert (await server.answer(201, "POST", "/v1/retry/r.2", json={}))["stream"] == "r.3"
    await start(server, "stuck", "s")
    await server.problem(409, "transition", "POST", "/v1/retry/s", json={})
    await server.answer(201, "PUT", "/v1/streams/no-run", json={})
    await server.problem(404, "not_found", "POST", "/v1/retry/no-run", json={})


async def test_a_silent_run_and_one_that_lasts_too_long_time_out(server: Served) -> None:
    body = {"task": "stuck", "name": "idle", "idle_seconds": 0.2}
    await server.answer(201, "POST", "/v1/runs", json=body)
    assert (await ended(server, "idle"))["reason"] == {"limit": "idle", "seconds": 0.2}
    body = {"task": "plain", "name": "total", "total_seconds": 0.3, "arguments": {"upto": 10_000, "pause": 0.01}}
    await server.answer(201, "POST", "/v1/runs", json=body)
    view = await ended(server, "total")
    assert (view["state"], view["reason"]) == ("timed_out", {"limit": "total", "seconds": 0.3})
    assert (await messages(server, "total"))[-1]["kind"] == "timed_out"


async def test_nobody_else_writes_to_the_stream_of_a_run(server: Served) -> None:
    await start(server, "stuck")
    await until(server, "text")
    await server.answer(200, "POST", "/v1/pause/r", json={})
    before = await messages(server)
    forged = {"messages": [{"kind": "checkpoint", "json": {"state": 9}}]}
    for path, body in (
        ("messages", forged),
        ("messages", {**forged, "producer": {"id": "p", "epoch": 99, "seq": 0}}),
        ("messages", {"close": {"state": "completed"}}),
        ("close", {"state": "completed"}),
        ("lease", {"producer": {"id": "p", "epoch": 99, "seq": 0}}),
        ("trim", {"first": 3}),
    ):
        await server.problem(409, "transition", "POST", f"/v1/{path}/r", json=body)
    response = await server.client.post("/v1/stream/r", content="[9]", headers={"content-type": "application/json"})
    assert response.status_code == 409
    assert await messages(server) == before
    await server.answer(202, "POST", "/v1/cancel/r", json={})
    assert (await ended(server))["state"] == "cancelled"


async def test_a_run_that_is_cancelled_while_it_rests_or_waits_says_so_last() -> None:
    limits = replace(LIMITS, supervised_runs_max=1)
    async with served(limits=limits, catalog=all_tasks()) as server:
        await start(server, "stuck", "first")
        await until(server, "text", "first")
        await start(server, "stuck", "second")
        await server.answer(200, "POST", "/v1/pause/first", json={})
        for name in ("second", "first"):
            await server.answer(202, "POST", f"/v1/cancel/{name}", json={})
            view = await ended(server, name)
            last = (await messages(server, name))[-1]
            assert (view["state"], last["kind"]) == ("cancelled", "cancelled")
            assert last["json"] == view["reason"]


async def test_a_paused_run_rests_and_goes_on(server: Served) -> None:
    await start(server, "plain", upto=100_000, pause=0.005)
    await until(server, "text")
    await server.answer(200, "POST", "/v1/pause/r", json={})
    await asyncio.sleep(2 * LIMITS.run_poll_seconds)
    head = (await state(server))["head"]
    await asyncio.sleep(2 * LIMITS.lease_seconds)
    assert ((await state(server))["head"], (await state(server))["state"]) == (head, "paused")
    await server.answer(200, "POST", "/v1/resume/r", json={})
    async with asyncio.timeout(CEILING_SECONDS):
        while (view := await state(server))["head"] <= head + 10:
            await asyncio.sleep(0.01)
    assert view["state"] == "running"
    found = await messages(server)
    numbers = [int(one["text"]) for one in found if "text" in one]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [one["kind"] for one in found].count("started") == 1


async def test_runs_wait_for_their_turn() -> None:
    limits = replace(LIMITS, supervised_runs_max=2, supervised_runs_of_owner_max=2)
    async with served(limits=limits, catalog=all_tasks()) as server:
        for name in ("a", "b", "c"):
            await start(server, "stuck", name)
        await until(server, "started", "a")
        await until(server, "started", "b")
        await asyncio.sleep(3 * limits.run_poll_seconds)
        assert (await state(server, "c"))["state"] == "open"
        await server.answer(202, "POST", "/v1/cancel/a", json={})
        await until(server, "started", "c")


async def test_owners_take_turns_and_none_takes_every_place() -> None:
    limits = replace(LIMITS, supervised_runs_max=4, supervised_runs_of_owner_max=3)
    async with served(limits=limits, catalog=all_tasks()) as server:
        desk, streams = server.services.desk, server.services.streams
        greedy, modest = Principal("local", "greedy"), Principal("local", "modest")
        for number in range(8):
            await desk.start(greedy, RunRequest(task="stuck", name=f"greedy/{number}"))
        await desk.start(modest, RunRequest(task="stuck", name="modest"))
        async with asyncio.timeout(CEILING_SECONDS):
            while (await streams.get(modest, "modest", may=Verb.READ)).state is not StreamState.RUNNING:
                await asyncio.sleep(0.01)
        await asyncio.sleep(3 * limits.run_poll_seconds)
        states = [(await streams.get(greedy, f"greedy/{number}", may=Verb.READ)).state for number in range(8)]
        assert states == [StreamState.RUNNING] * 3 + [StreamState.OPEN] * 5, "the oldest first, and not all of them"


async def test_beyond_the_limit_of_active_runs_a_start_is_refused_and_a_repeated_one_is_not() -> None:
    limits = replace(LIMITS, active_runs_max=1)
    async with served(limits=limits, catalog=all_tasks()) as server:
        await start(server, "stuck", "a")
        await server.problem(429, "overloaded", "POST", "/v1/runs", json={"task": "stuck", "name": "b"})
        await start(server, "stuck", "a", status=200)


async def test_one_owner_cannot_take_the_places_of_all_runs() -> None:
    limits = replace(LIMITS, active_runs_max=6, active_runs_of_owner_max=3)
    async with served(limits=limits, catalog=all_tasks()) as server:
        desk = server.services.desk
        greedy, modest = Principal("local", "greedy"), Principal("local", "modest")
        for number in range(3):
            await desk.start(greedy, RunRequest(task="stuck", name=f"greedy/{number}"))
        with pytest.raises(QuotaError) as refused:
            await desk.start(greedy, RunRequest(task="stuck", name="greedy/3"))
        assert refused.value.detail["limit"] == "active_runs_of_owner_max"
        again = await desk.start(greedy, RunRequest(task="stuck", name="greedy/0"))
        assert not again.created
        assert (await desk.start(modest, RunRequest(task="stuck", name="modest"))).created
        await start(server, "stuck", "a")
        await start(server, "stuck", "b")


async def test_runs_that_are_started_at_once_are_no_more_than_one_after_the_other() -> None:
    limits = replace(LIMITS, active_runs_max=6, active_runs_of_owner_max=3)
    async with served(limits=limits, catalog=all_tasks()) as server:
        desk, greedy = server.services.desk, Principal("local", "greedy")
        requests = [RunRequest(task="stuck", name=f"greedy/{number // 2}") for number in range(20)]
        answers = await asyncio.gather(*[desk.start(greedy, one) for one in requests], return_exceptions=True)
        assert [answer.created if isinstance(answer, Created) else type(answer) for answer in answers] == [
            *([True, False] * 3),
            *([QuotaError] * 14),
        ]
        assert not desk._starting


async def test_a_key_that_the_operator_has_handed_on_starts_runs_within_bounds_and_the_operator_without() -> None:
    limits = replace(LIMITS, active_runs_max=6, active_runs_of_owner_max=2)
    async with served(limits=limits, catalog=all_tasks()) as server:
        grants = (Grant("w/", frozenset({Verb.START}), prefix=True),)
        key = (await server.services.tokens.make(Principal(), NewToken(grants=grants))).secret
        headers = {"authorization": f"Bearer {key}"}
        for number in range(2):
            body = {"task": "stuck", "name": f"w/{number}"}
            await server.answer(201, "POST", "/v1/runs", json=body, headers=headers)
        body = {"task": "stuck", "name": "w/2"}
        refused = await server.problem(429, "quota_exceeded", "POST", "/v1/runs", json=body, headers=headers)
        assert refused["facts"]["limit"] == "active_runs_of_owner_max"
        await server.answer(200, "POST", "/v1/runs", json={**body, "name": "w/0"}, headers=headers)
        for name in ("w/2", "a"):
            await start(server, "stuck", name)


async def test_a_deleted_run_stops(server: Served) -> None:
    await start(server, "asleep")
    pid = (await until(server, "json"))["json"]["pid"]
    await server.answer(204, "DELETE", "/v1/streams/r")
    async with asyncio.timeout(CEILING_SECONDS):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)


async def test_what_there_is_to_run_is_shown_with_the_schema_of_its_arguments(server: Served) -> None:
    (source,) = (await server.answer(200, "GET", "/v1/runnables"))["sources"]
    found = {one["name"]: one for one in source["runnables"]}
    assert found["add"]["description"] == "The sum."
    assert found["add"]["input_schema"]["properties"]["left"]["type"] == "integer"
    assert found["add"]["input_schema"]["required"] == ["left"]
