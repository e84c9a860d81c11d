"""A run in short: what a card needs, from a bounded part of however long a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.integration.runs.test_supervised import LIMITS, all_tasks, ended, messages, start, until
from tests.support.inprocess import Served, served
from unbroken.identity import Principal, Verb
from unbroken.messages import Message, NewMessage, Seq, StreamInfo
from unbroken.requests import NewStream
from unbroken.runs.history import CONTROL_KINDS
from unbroken.runs.summary import Summary, read_summary

pytestmark = pytest.mark.anyio

SCAN_BYTES = 20_000
SMALL = replace(LIMITS, run_summary_scan_bytes_max=SCAN_BYTES, read_bytes_max=8_000, run_summary_bytes_max=4_000)
FILLER = NewMessage(kind="text", text="x" * 100)


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served(limits=SMALL, catalog=all_tasks()) as running:
        yield running


@pytest.fixture
async def idle() -> AsyncIterator[Served]:
    """A server that executes nothing."""
    async with served(limits=SMALL) as running:
        yield running


def told(kind: str, **body: Any) -> NewMessage:
    return NewMessage(kind=kind, json=msgspec.Raw(msgspec.json.encode(body)))


async def stored(server: Served, *told: NewMessage) -> StreamInfo:
    """A run that nobody executes, with these messages."""
    streams = server.services.streams
    created = await streams.create(Principal(), "r", NewStream(kind="task", run='{"type":"task","name":"gone"}'))
    for start_at in range(0, len(told), 50):
        await streams.append_durably(created.stream, list(told[start_at : start_at + 50]))
    return await streams.get(Principal(), "r", may=Verb.READ)


def counting(server: Served) -> list[int]:
    """The bytes of each read of the store from now on."""
    reads: list[int] = []
    read = server.services.store.read

    async def counted(*arguments: Any, **options: Any) -> Any:
        found = await read(*arguments, **options)
        reads.append(sum(len(batch.body) for batch in found.batches))
        return found

    server.services.streams.store.read = counted  # type: ignore[method-assign]
    return reads


def kinds(summary: Any) -> list[tuple[int, str]]:
    return [(one["seq"], one["kind"]) for one in summary["messages"]]


async def test_it_holds_the_newest_of_each_kind_and_where_to_go_on(server: Served) -> None:
    await start(server, "count", upto=5)
    await ended(server)
    summary = await server.answer(200, "GET", "/v1/runs/r")
    assert (summary["stream"]["state"], summary["complete"]) == ("completed", True)
    assert summary["cursor"] == summary["stream"]["cursor"]
    everything = await messages(server)
    newest = {one["kind"]: (seq, one) for seq, one in enumerate(everything, start=1) if one["kind"] in CONTROL_KINDS}
    assert kinds(summary) == sorted((seq, kind) for kind, (seq, _) in newest.items())
    for one in summary["messages"]:
        if one["kind"] == "checkpoint":
            assert one["cut"], "a state is for whoever goes on with it"
            assert "json" not in one
        else:
            assert one["json"] == newest[one["kind"]][1]["json"]
        assert one["time"] > 0


async def test_open_questions_are_in_it_and_answered_ones_are_not(server: Served) -> None:
    await start(server, "curious")
    asked = (await until(server, "input_required"))["json"]
    summary = await server.answer(200, "GET", "/v1/runs/r")
    assert [one["json"] for one in summary["messages"] if one["kind"] == "input_required"] == [asked]
    await server.answer(200, "POST", "/v1/answer/r", json={"id": asked["id"], "response": "green"})
    await ended(server)
    summary = await server.answer(200, "GET", "/v1/runs/r")
    assert "input_required" not in [kind for _, kind in kinds(summary)]
    assert [one["json"]["value"] for one in summary["messages"] if one["kind"] == "result"] == ["you said green"]


async def test_a_stream_that_is_no_run_has_none(server: Served) -> None:
    await server.create("plain")
    await server.problem(404, "not_found", "GET", "/v1/runs/plain")
    await server.problem(404, "not_found", "GET", "/v1/runs/nobody")
    await server.problem(405, "protocol", "DELETE", "/v1/runs/plain")


async def test_of_a_long_run_its_beginning_and_its_end_are_looked_at_and_it_says_so(idle: Served) -> None:
    lost = [told("progress", progress=1), told("log", text="lost"), told("input", id="early", response=1)]
    middle = [told("input_required", id="early"), *[FILLER] * 500, *lost, *[FILLER] * 500]
    last = [told("progress", progress=2), told("input_required", id="q", message="?"), FILLER]
    stream = await stored(idle, told("accepted", type="task"), told("started", attempt=1), *middle, *last)
    reads = counting(idle)
    summary = await idle.answer(200, "GET", "/v1/runs/r")
    assert summary["complete"] is False
    head = stream.head
    assert kinds(summary) == [(1, "accepted"), (2, "started"), (head - 2, "progress"), (head - 1, "input_required")]
    assert summary["messages"][2]["json"] == {"progress": 2}
    assert summary["cursor"] == f"{stream.epoch}:{head}"
    assert 0 < sum(reads) < 3 * (SCAN_BYTES + SMALL.read_bytes_max)


async def test_its_end_is_in_it_however_large_the_last_messages_are(idle: Served) -> None:
    large = NewMessage(kind="text", text="y" * 15_000)
    await stored(idle, told("started", attempt=1), *[FILLER] * 900, *[large] * 8, told("result", value=1))
    reads = counting(idle)
    summary = await idle.answer(200, "GET", "/v1/runs/r")
    assert (summary["messages"][-1]["kind"], summary["complete"]) == ("result", False)
    assert 0 < sum(reads) < 3 * (SCAN_BYTES + SMALL.read_bytes_max)
    assert summary["cursor"] == summary["stream"]["cursor"]


async def test_its_contents_are_bounded_and_what_is_left_out_is_told(idle: Served) -> None:
    logs = [told(kind, text="z" * 400) for kind in sorted(CONTROL_KINDS - {"input_required", "input", "checkpoint"})]
    questions = [told("input_required", id=str(number), message="?") for number in range(50)]
    await stored(idle, told("result", value="v" * 600), *questions, *logs[:-2], told("stderr", text="w" * 400))
    summary = await idle.answer(200, "GET", "/v1/runs/r")
    contents = [one for one in summary["messages"] if not one.get("cut")]
    assert sum(len(msgspec.json.encode(one["json"])) for one in contents) <= SMALL.run_summary_bytes_max
    assert len(contents) > 5
    assert [one for one in summary["messages"] if one.get("cut") and "json" in one] == []
    assert [kind for _, kind in kinds(summary)].count("input_required") == 20


async def test_a_question_of_long_ago_can_be_answered_all_the_same(idle: Served) -> None:
    quiet = [FILLER] * 500
    stream = await stored(idle, *quiet, told("input_required", id="q", message="?"), *quiet)
    _, summary = await read_summary(idle.services.streams, stream)
    assert not summary.complete
    await idle.answer(200, "POST", "/v1/answer/r", json={"id": "q", "response": 1})
    await idle.problem(409, "already_exists", "POST", "/v1/answer/r", json={"id": "q", "response": 2})


def test_a_question_from_before_what_was_left_out_is_not_called_open() -> None:
    summary = Summary()
    summary.take(Seq(1), Message(kind="input_required", json=msgspec.Raw(b'{"id":"a"}')))
    assert summary.question("a") is not None
    summary.skip()
    assert summary.question("a") is None
    summary.take(Seq(9), Message(kind="input_required", json=msgspec.Raw(b"[]")))
    summary.take(Seq(10), Message(kind="stderr", data=b"\xff"))
    assert [(one.seq, one.cut) for one in summary.messages(1000)] == [(9, False), (10, True)]


def test_not_only_the_newest_file_is_in_it() -> None:
    summary = Summary()
    for number in range(1, 151):
        body = {"name": f"{number}", "stream": f"r/files/{number}"}
        summary.take(Seq(number), Message(kind="file", json=msgspec.Raw(msgspec.json.encode(body))))
    assert [one.seq for one in summary.messages(100_000)] == list(range(51, 151))
