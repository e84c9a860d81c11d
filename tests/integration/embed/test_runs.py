"""Runs inside an application: detached from viewers, always ended, really stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.embed.host import CEILING_SECONDS, hosted, until
from tests.integration.embed.steps import Steps, ended, head
from tests.support.parts import ALICE, running_parts
from unbroken import NewMessage, Unbroken
from unbroken.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    TransitionError,
)
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamInfo, StreamState
from unbroken.requests import NewStream
from unbroken.runs.one import Run
from unbroken.store.base import Producer
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def test_a_run_that_ends_is_completed_with_everything_it_yielded() -> None:
    unbroken = Unbroken("memory:")

    async def source() -> AsyncIterator[Any]:
        yield "text"
        yield b"\x00\xff"
        yield {"a": [1, None]}
        yield NewMessage(kind="tool", text="call")

    async with unbroken.lifespan():
        started = await unbroken.start(source(), "a", session="s", metadata={"by": "test"})
        assert (started.state, started.session, started.metadata) == (StreamState.RUNNING, "s", '{"by":"test"}')
        found = [followed async for followed in unbroken.follow("a")]
        assert [(one.seq, one.message.kind) for one in found] == [(1, "text"), (2, "data"), (3, "json"), (4, "tool")]
        assert (found[1].message.data, bytes(found[2].message.json or b"")) == (b"\x00\xff", b'{"a":[1,null]}')
        assert str(found[3].cursor) == f"{started.epoch}:4"
        assert (await unbroken.state("a")).state is StreamState.COMPLETED


async def test_what_an_application_starts_for_a_user_is_that_users() -> None:
    unbroken = Unbroken("memory:")
    alice, bob = (unbroken.acting_for(Principal("acme", name)) for name in ("alice", "bob"))
    reader = unbroken.acting_for(
        Principal("acme", "alice", actor="a phone", grants=(Grant("a", frozenset({Verb.READ})),))
    )

    async def source() -> AsyncIterator[Any]:
        yield "hers"

    for _ in range(2):  # also when the application was started again
        async with unbroken.lifespan():
            await alice.start(source(), "a")
            assert [one.message.text async for one in alice.follow("a")] == ["hers"]
            assert [one.message.text async for one in reader.follow("a")] == ["hers"]
            for other in (bob, unbroken):
                with pytest.raises(NotFoundError):
                    await other.state("a")
            with pytest.raises(ForbiddenError):
                await reader.cancel("a")


async def test_a_viewer_that_leaves_stops_nothing() -> None:
    unbroken, steps = Unbroken("memory:"), Steps()
    async with unbroken.lifespan():
        await unbroken.start(steps.source(), "a")
        steps.step("one")
        async for followed in unbroken.follow("a"):
            assert followed.message.text == "one"
            break
        await until("nobody watches", lambda: unbroken.services.hub.subscriptions == 0)
        steps.step("two", "three")
        steps.finish()
        info, texts = await ended(unbroken, "a")
        assert (info.state, texts) == (StreamState.COMPLETED, ["one", "two", "three"])


async def test_the_same_name_attaches_and_begins_nothing_twice() -> None:
    unbroken, first, second = Unbroken("memory:"), Steps(), Steps()
    async with unbroken.lifespan():
        one = await unbroken.start(first.source(), "a")
        again = await asyncio.gather(*(unbroken.start(second.source(), "a") for _ in range(5)))
        assert {info.id for info in again} == {one.id}
        first.step("x")
        first.finish()
        assert (await ended(unbroken, "a"))[1] == ["x"]
        after_the_end = await unbroken.start(second.source(), "a")
        assert after_the_end.state is StreamState.COMPLETED
        assert not second.begun.is_set()


async def test_simultaneous_starts_of_one_name_begin_one_run() -> None:
    unbroken = Unbroken("memory:")
    begun = 0

    async def source() -> AsyncIterator[str]:
        nonlocal begun
        begun += 1
        yield "x"

    async with unbroken.lifespan():
        await asyncio.gather(*(unbroken.start(source(), "a") for _ in range(20)))
        assert (await ended(unbroken, "a"))[1] == ["x"]
        assert begun == 1


async def test_a_run_that_raises_is_failed_and_says_of_what_kind_but_no_secret() -> None:
    unbroken = Unbroken("memory:")

    async def source() -> AsyncIterator[str]:
        yield "one"
        raise ValueError("token=hunter2")

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        info, texts = await ended(unbroken, "a")
        assert (info.state, info.reason, texts) == (StreamState.FAILED, '{"error":"ValueError"}', ["one"])


async def test_a_source_that_cancels_itself_is_failed() -> None:
    unbroken = Unbroken("memory:")

    async def source() -> AsyncIterator[str]:
        yield "one"
        raise asyncio.CancelledError

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        info, texts = await ended(unbroken, "a")
        assert (info.state, info.reason, texts) == (StreamState.FAILED, '{"error":"CancelledError"}', ["one"])


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (object(), "TypeError"),
        ({"large": "x" * DEFAULT_LIMITS.message_bytes_max}, "TooLargeError"),
        (NewMessage(kind="a kind with spaces", text="x"), "InvalidError"),
    ],
    ids=["no value", "too large", "bad kind"],
)
async def test_what_cannot_be_stored_fails_its_run_and_no_other(item: Any, error: str) -> None:
    unbroken, other = Unbroken("memory:"), Steps()

    async def source() -> AsyncIterator[Any]:
        yield "one"
        yield item

    async with unbroken.lifespan():
        await unbroken.start(other.source(), "other")
        await unbroken.start(source(), "a")
        info, texts = await ended(unbroken, "a")
        assert (info.state, texts) == (StreamState.FAILED, ["one"])
        assert f'"error":"{error}"' in info.reason
        other.step("still here")
        other.finish()
        assert (await ended(unbroken, "other"))[1] == ["still here"]


async def test_a_text_larger_than_a_message_becomes_several() -> None:
    unbroken = Unbroken("memory:")
    text = "".join(chr(0x20 + number % 90) + "\x01é𐍈" for number in range(300_000))

    async def source() -> AsyncIterator[str]:
        yield text

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        info, texts = await ended(unbroken, "a")
        assert info.state is StreamState.COMPLETED
        assert "".join(texts) == text
        assert len(texts) > 1


async def test_cancel_over_http_stops_a_blocked_run_within_a_second_and_keeps_what_there_is() -> None:
    unbroken, steps = Unbroken("memory:"), Steps()
    async with hosted(unbroken.asgi) as host:
        await unbroken.start(steps.source(), "a")
        steps.step("one", "two")
        await head(unbroken, "a", 2)
        async with asyncio.timeout(1):
            cancelled = await host.client.post("/v1/cancel/a")
            assert cancelled.status_code == 202
            await steps.left.wait()
            info, texts = await ended(unbroken, "a")
        assert (info.state, info.reason, texts) == (StreamState.CANCELLED, '{"by":"local"}', ["one", "two"])
        assert (await host.client.post("/v1/cancel/a")).json()["state"] == "cancelled"


async def test_a_cancel_that_comes_in_the_moment_of_the_start_is_not_lost() -> None:
    unbroken = Unbroken("memory:")
    async with unbroken.lifespan():
        for number in range(50):
            steps = Steps()
            name = f"a{number}"
            await unbroken.start(steps.source(), name)
            await unbroken.cancel(name)
            assert (await ended(unbroken, name))[0].state is StreamState.CANCELLED


@pytest.mark.parametrize("stop", [True, False], ids=["stop", "cancel"])
async def test_a_run_that_is_ended_before_its_source_began_ends_truthfully(stop: bool) -> None:
    steps = Steps()
    limits = replace(DEFAULT_LIMITS, run_grace_seconds=2 * CEILING_SECONDS)
    async with running_parts(MemoryStore(limits=limits), limits=limits) as parts:
        info = await parts.stream("a", NewStream(kind="text", lease=Producer("p", 1, 0)))
        run = Run(parts.streams, parts.states, info, "p")
        if stop:
            run.stop()
        else:
            run.observe(await parts.states.cancel(info, ALICE))
        async with asyncio.timeout(CEILING_SECONDS):
            await run.execute(steps.source())
        assert not steps.begun.is_set()
        state = (await parts.streams.get(ALICE, "a", may=Verb.READ)).state
        assert state is (StreamState.INTERRUPTED if stop else StreamState.CANCELLED)


async def test_last_words_after_a_cancel_are_kept() -> None:
    unbroken = Unbroken("memory:")

    async def source() -> AsyncIterator[str]:
        try:
            yield "one"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "stopped tidily"

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        await head(unbroken, "a", 1)
        await unbroken.cancel("a")
        info, texts = await ended(unbroken, "a")
        assert (info.state, texts) == (StreamState.CANCELLED, ["one", "stopped tidily"])


@pytest.mark.parametrize("answer", ["goes on for ever", "refuses to close"])
async def test_a_source_that_does_not_obey_is_left_and_its_stream_ends_as_cancelled(answer: str) -> None:
    unbroken = Unbroken("memory:", limits=replace(DEFAULT_LIMITS, run_grace_seconds=0.2))
    release = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "one"
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                if answer == "goes on for ever":
                    continue
                await release.wait()

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        await head(unbroken, "a", 1)
        await unbroken.cancel("a")
        info, texts = await ended(unbroken, "a")
        assert (info.state, texts) == (StreamState.CANCELLED, ["one"])
        release.set()


async def test_stopping_the_application_interrupts_its_runs_truthfully(tmp_path: Any) -> None:
    unbroken, steps = Unbroken(f"sqlite:///{tmp_path}/a.db", durability="process"), Steps()
    async with hosted(unbroken.asgi) as host:
        await unbroken.start(steps.source(), "a")
        steps.step("one", "two")
        await head(unbroken, "a", 2)
        await host.stop()
    assert steps.left.is_set()
    async with hosted(unbroken.asgi) as host:
        view = (await host.client.get("/v1/streams/a")).json()
        assert (view["state"], view["reason"], view["head"]) == ("interrupted", {"cause": "server_stopped"}, 2)


async def test_a_run_whose_stream_somebody_else_ends_is_stopped() -> None:
    unbroken, steps = Unbroken("memory:", limits=replace(DEFAULT_LIMITS, lease_seconds=1.0)), Steps()
    async with hosted(unbroken.asgi) as host:
        await unbroken.start(steps.source(), "a")
        steps.step("one")
        await head(unbroken, "a", 1)
        assert (await host.client.post("/v1/close/a", json={"state": "timed_out"})).status_code == 200
        async with asyncio.timeout(CEILING_SECONDS):
            await steps.left.wait()
        assert (await unbroken.state("a")).state is StreamState.TIMED_OUT


async def test_a_pause_outlives_the_renewals_of_its_run_and_resuming_gives_the_lease_back() -> None:
    limits = replace(DEFAULT_LIMITS, lease_seconds=1.0)
    unbroken, steps = Unbroken("memory:", limits=limits), Steps()
    refused = asyncio.Event()
    async with hosted(unbroken.asgi) as host:
        started = await unbroken.start(steps.source(), "a")
        lease = unbroken.services.states.lease

        async def watched(*arguments: Any) -> StreamInfo:
            try:
                return await lease(*arguments)
            except TransitionError:
                refused.set()
                raise

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unbroken.services.states, "lease", watched)
            assert (await host.client.post("/v1/pause/a")).json()["state"] == "paused"
            steps.step("while it is paused")
            async with asyncio.timeout(CEILING_SECONDS):
                await refused.wait()
        await head(unbroken, "a", 1)
        assert (await unbroken.state("a")).state is StreamState.PAUSED
        assert (await host.client.post("/v1/resume/a")).json()["state"] == "open"
        async with asyncio.timeout(CEILING_SECONDS):
            while (now := await unbroken.state("a")).state is not StreamState.RUNNING:
                await asyncio.sleep(0.02)
        assert now.lease_producer == started.lease_producer
        steps.finish()
        info, texts = await ended(unbroken, "a")
        assert (info.state, texts) == (StreamState.COMPLETED, ["while it is paused"])


@pytest.mark.parametrize("fault", [RuntimeError("a defect"), StopIteration()])
async def test_a_source_that_cannot_even_begin_is_the_callers_and_ends_no_other_run(fault: Exception) -> None:
    class Faulty:
        def __aiter__(self) -> AsyncIterator[str]:
            raise fault

    unbroken, other = Unbroken("memory:", limits=replace(DEFAULT_LIMITS, runs_max=2)), Steps()
    async with unbroken.lifespan():
        await unbroken.start(other.source(), "other")
        for _ in range(2):  # it takes no place either
            async with asyncio.timeout(CEILING_SECONDS):
                with pytest.raises(RuntimeError):
                    await unbroken.start(Faulty(), "a")
        with pytest.raises(NotFoundError):
            await unbroken.state("a")
        other.step("still here")
        other.finish()
        info, texts = await ended(unbroken, "other")
        assert (info.state, texts) == (StreamState.COMPLETED, ["still here"])


async def test_runs_are_bounded_in_number() -> None:
    unbroken = Unbroken("memory:", limits=replace(DEFAULT_LIMITS, runs_max=2))
    running = [Steps(), Steps()]
    async with unbroken.lifespan():
        for number, steps in enumerate(running):
            await unbroken.start(steps.source(), str(number))
        with pytest.raises(OverloadedError):
            await unbroken.start(Steps().source(), "more")
        running[0].finish()
        await ended(unbroken, "0")
        await until("a place is free", lambda: len(unbroken._parts.runs) == 1)
        await unbroken.start(Steps().source(), "more")


async def test_what_is_no_async_iterable_is_refused_at_once() -> None:
    unbroken = Unbroken("memory:")

    async def source() -> AsyncIterator[str]:
        yield "x"

    not_called: Any = source
    async with unbroken.lifespan():
        with pytest.raises(TypeError, match="called async generator"):
            await unbroken.start(not_called, "a")
        with pytest.raises(NotFoundError):
            await unbroken.state("a")


async def test_a_name_that_belongs_to_something_else_is_refused() -> None:
    unbroken, steps = Unbroken("memory:"), Steps()
    async with hosted(unbroken.asgi) as host:
        await host.client.put("/v1/streams/a", json={"kind": "other"})
        with pytest.raises(AlreadyExistsError):
            await unbroken.start(steps.source(), "a")
        with pytest.raises(InvalidError):
            await unbroken.start(steps.source(), "../etc")
        assert not steps.begun.is_set()


async def test_following_from_a_cursor_gives_what_is_behind_it() -> None:
    unbroken, steps = Unbroken("memory:"), Steps()
    async with unbroken.lifespan():
        await unbroken.start(steps.source(), "a")
        steps.step("one", "two", "three")
        steps.finish()
        all_of_it = [followed async for followed in unbroken.follow("a")]
        behind = [followed.message.text async for followed in unbroken.follow("a", all_of_it[0].cursor)]
        assert behind == ["two", "three"]
        assert [followed.seq async for followed in unbroken.follow("a", "last:1")] == [3]


async def test_following_ends_with_an_error_when_the_application_stops_first() -> None:
    unbroken = Unbroken("memory:")
    outcome: list[str] = []

    async def watch(ready: Callable[[], None]) -> None:
        ready()
        try:
            async for _ in unbroken.follow("open"):
                pass
        except Exception as error:  # noqa: BLE001 - which one it is, is the question
            outcome.append(type(error).__name__)

    async with asyncio.TaskGroup() as tasks, unbroken.lifespan():
        services = unbroken.services
        await services.streams.create(unbroken._principal, "open", NewStream())
        started = asyncio.Event()
        tasks.create_task(watch(started.set))
        await until("it watches", lambda: services.hub.subscriptions == 1)
    assert outcome == ["DrainingError"]
