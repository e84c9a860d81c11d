"""What a server says during a call besides its result: output, logs of shared sessions, and requests that it may not make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.mcp.calls import LIMITS, Calls, calls_of, http, stdio
from tests.integration.mcp.test_calls import serving
from tests.support.faulty import FaultyStore
from unbroken.mcp.options import Options
from unbroken.store.base import WriteOp, WriteResult
from unbroken.testing.mcp_http import McpFault, MockMcpServer

pytestmark = pytest.mark.anyio

SPEAKS = Options(output_from_progress=frozenset({"faulty"}))


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_messages_of_progress_are_output_where_the_operator_says_so(era: str) -> None:
    async with (
        MockMcpServer(McpFault.SPOKEN, era=era).running() as mock,
        calls_of(http(mock.url, SPEAKS)) as calls,
    ):
        end = await calls.call("faulty", words=500)
        said = [one["text"] for one in end.messages if one["kind"] == "output"]
        assert said == [f"word {number} \n" for number in range(500)], "each of them, in order"
        assert end.of("progress")[-1] == {"progress": 499, "total": 1_000_000}, "the words are not said twice"
        assert (end.kinds[-1], end.text) == ("result", "said")


async def test_without_that_they_are_progress() -> None:
    async with MockMcpServer(McpFault.SPOKEN).running() as mock, calls_of(http(mock.url)) as calls:
        end = await calls.call("faulty", words=10)
        assert "output" not in end.kinds
        assert end.of("progress")[-1]["message"] == "word 9 \n"


class StoppedStore(FaultyStore):
    """Holds back the write of the first output, and all after it, until released."""

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        if b'"output"' in repr(ops).encode() and not self.waiting.is_set():
            self.hold()
        return await super().write(ops)


async def test_output_that_the_store_cannot_take_is_bounded_and_counted() -> None:
    words, pad = 2_000, 8_192  # more than sockets hold
    limits = replace(LIMITS, mcp_queue_max=100, run_memory_bytes_max=65_536, run_append_bytes_max=32_768)
    store = StoppedStore(limits=limits)
    async with (
        MockMcpServer(McpFault.SPOKEN).running() as mock,
        calls_of(http(mock.url, SPEAKS), limits, store=store) as calls,
    ):
        await calls.start("faulty", "r", words=words, pad=pad)
        await asyncio.wait_for(store.waiting.wait(), 20)
        await mock.said_all.wait()
        store.release()
        end = await calls.ended("r")
        said = [one["text"] for one in end.messages if one["kind"] == "output"]
        dropped = sum(one["dropped"] for one in end.of("log") if "output" in one["text"])
        assert dropped > 0, "the bound was reached"
        assert len(said) + dropped == words
        numbers = [int(word.split()[1]) for word in said]
        assert numbers == sorted(numbers)
        assert end.text == "said"


SHARED = [
    pytest.param("stdio", Options(shared=2, max_processes=1), id="a process"),
    pytest.param("legacy", Options(session="server"), id="an old session"),
    pytest.param("http", Options(session="server"), id="a new session"),
]


@pytest.mark.parametrize(("how", "options"), SHARED)
async def test_logs_of_a_shared_session_belong_to_its_only_call_or_to_nobody(
    how: str, options: Options, tmp_path: Path
) -> None:
    until = tmp_path / "until"
    until.touch()
    async with serving(how, options=options) as calls:
        await alone(calls, until)
        until.unlink()
        await calls.start("talk", "silent", lines=0, until=str(until))
        await calls.until("silent", "progress")
        await calls.start("talk", "talks", lines=3, until=str(until))
        await calls.until("talks", "progress")
        until.touch()
        for name in ("silent", "talks"):
            (log,) = (await calls.ended(name)).of("log")
            assert log["dropped"] == 3
            assert "may have been of any" in log["text"]


async def alone(calls: Calls, until: Path) -> None:
    end = await calls.call("talk", "alone", lines=3, until=str(until))
    assert [one["text"] for one in end.of("log")] == ["line 0", "line 1", "line 2"]


async def test_a_question_in_a_shared_process_is_asked_by_the_only_call_there_is() -> None:
    async with calls_of(stdio("ask", options=Options(shared=4, max_processes=1))) as calls:
        await calls.start("faulty", "r")
        question = await calls.until("r", "input_required")
        body = {"id": question["id"], "response": {"name": "Ada"}}
        await calls.server.answer(200, "POST", "/v1/answer/r", json=body)
        assert json.loads((await calls.ended("r")).text) == {"action": "accept", "content": {"name": "Ada"}}


async def test_requests_for_what_is_not_offered_are_refused_and_logged() -> None:
    async with calls_of(stdio("sampling")) as calls:
        end = await calls.call("faulty")
        sampling, roots = json.loads(end.text)
        assert (sampling["message"], roots["message"]) == ("Sampling not supported", "List roots not supported")
        asked = [one["text"] for one in end.of("log")]
        assert asked == [
            f"the server asked for {method}, which this client does not offer; it was refused"
            for method in ("sampling/createMessage", "roots/list")
        ]


async def test_a_question_of_the_new_protocol_that_is_not_offered_ends_the_call_clearly() -> None:
    async with MockMcpServer(McpFault.SAMPLING).running() as mock, calls_of(http(mock.url)) as calls:
        end = await calls.call("faulty")
        assert (end.state, end.last["class"]) == ("failed", "bad_response")
        assert end.last["error"] == "the server asks for sampling/createMessage, which this client does not offer"
