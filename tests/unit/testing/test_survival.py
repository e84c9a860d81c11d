"""The survival kit against servers in this process: down, silent, or careless with text; nobody is accused wrongly."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from unbroken.errors import UnreachableError
from unbroken.testing.survival import (
    Adapter,
    Bounds,
    Capability,
    Complete,
    Delivery,
    Ended,
    LostError,
    Outcome,
    Row,
    Target,
    runner,
    running,
    scenarios,
    survive,
)
from unbroken.testing.survival.adapters.program import Program

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]


class Server:
    """What the adapter talks to, in this process; also its own launcher."""

    def __init__(self, *, starts: int = 100, tells_positions: bool = True) -> None:
        self.messages: list[str] = []
        self.ended = False
        self.up = False
        self.tells_positions = tells_positions
        self.readable = True
        self.ascii_only = False
        self.append_seconds = 0.0
        self.start_seconds = 0.0
        self.appends_at_most = 10_000
        self._starts = starts

    async def start(self, _port: int, _directory: Path) -> None:
        self._starts -= 1
        if self._starts < 0:
            raise UnreachableError("the server ended with 1")
        await asyncio.sleep(self.start_seconds)
        self.up = True

    async def stop(self, _number: signal.Signals) -> None:
        self.up = False

    def target(self) -> Target:
        return Target("", lambda url: Direct(url, self), Direct.capabilities, self)


class Direct(Adapter):
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability) - {Capability.DELETE}

    def __init__(self, url: str, server: Server) -> None:
        super().__init__(url)
        self._server = server

    def _reach(self) -> Server:
        if not self._server.up:
            raise LostError("nobody answers")
        return self._server

    async def create(self, stream: str) -> None:
        del stream
        self._reach().messages.clear()

    async def append(self, stream: str, payload: str, *, producer: str, number: int) -> int:
        del stream, producer, number
        await asyncio.sleep(self._server.append_seconds)
        if len(self._server.messages) >= self._server.appends_at_most:
            await asyncio.Event().wait()
        self._reach().messages.append(self._stored(payload))
        return self._position(len(self._server.messages))

    async def end(self, stream: str) -> None:
        del stream
        self._reach().ended = True

    async def subscribe(self, stream: str, cursor: str) -> AsyncGenerator[Delivery | Ended, None]:
        del stream
        place = int(cursor or 0)
        while True:
            server = self._reach()
            while place < len(server.messages):
                place += 1
                yield Delivery(server.messages[place - 1], cursor=str(place), position=self._position(place))
            if server.ended:
                yield Ended("completed")
                return
            await asyncio.sleep(0.001)

    async def read_all(self, stream: str) -> Complete:
        del stream
        server = self._reach()
        if not server.readable:
            raise LostError("it is busy")
        rows = [Delivery(text, position=self._position(place)) for place, text in enumerate(server.messages, 1)]
        return Complete(tuple(rows), "completed")

    def _stored(self, payload: str) -> str:
        return payload.encode("ascii", "replace").decode() if self._server.ascii_only else payload

    def _position(self, place: int) -> int:
        return place if self._server.tells_positions else 0


BOUNDS = Bounds(scenario_seconds=30, quiet_seconds=2, patience_seconds=1)


async def row(server: Server, name: str, monkeypatch: pytest.MonkeyPatch, bounds: Bounds = BOUNDS) -> Row:
    monkeypatch.setattr(runner, "FINAL_SECONDS", 0.5)
    (scenario,) = [each for each in scenarios() if each.name == name]
    async with running(server.target()) as target:
        (found,) = await survive(target, [scenario], seed=1, label="down", bounds=bounds)
    return found


async def test_a_server_that_does_not_start_again_fails_and_the_kit_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await row(Server(starts=2), "kill", monkeypatch)
    assert found.outcome is Outcome.FAIL
    assert found.broken == ["live"]
    assert found.cells["kept"].outcome is Outcome.INCONCLUSIVE
    assert "the server did not start again: the server ended with 1" in found.notes


@pytest.mark.parametrize("tells_positions", [True, False])
async def test_what_nobody_could_read_at_the_end_is_not_held_to_be_lost(
    monkeypatch: pytest.MonkeyPatch, *, tells_positions: bool
) -> None:
    server = Server(tells_positions=tells_positions)
    server.readable = False
    found = await row(server, "steady", monkeypatch)
    assert found.broken == []
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.cells["kept"].outcome is Outcome.INCONCLUSIVE
    assert found.cells["unbroken"].outcome is (Outcome.PASS if tells_positions else Outcome.INCONCLUSIVE)
    assert "could not be read at the end" in found.notes[0]


async def test_the_server_of_these_tests_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await row(Server(), "kill", monkeypatch)).outcome is Outcome.PASS


async def test_a_server_that_spoils_what_is_not_ascii_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.ascii_only = True
    found = await row(server, "steady", monkeypatch)
    assert found.broken == ["known"]
    assert found.cells["same"].evidence.startswith("corrupt")


async def test_a_server_is_stuck_when_nothing_happens_any_more_and_slow_when_it_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds = Bounds(scenario_seconds=60, quiet_seconds=2, patience_seconds=2)

    def slow() -> Server:
        server = Server()
        server.append_seconds = 0.08  # all of them take longer than nothing may happen
        server.start_seconds = 2.5  # as does starting it, which the kit does
        return server

    assert (await row(slow(), "kill", monkeypatch, bounds)).outcome is Outcome.PASS
    slower = await row(slow(), "steady", monkeypatch, Bounds(scenario_seconds=1, quiet_seconds=5))
    assert (slower.broken, slower.outcome) == ([], Outcome.INCONCLUSIVE)
    assert slower.cells["arrives"].evidence.startswith("slow (")
    assert "not finished within 1 s" in slower.notes
    stuck = Server()
    stuck.appends_at_most = 10
    for few in (bounds, replace(bounds, scenario_seconds=1)):  # it is no less stuck for having less time
        found = await row(stuck, "steady", monkeypatch, few)
        assert (found.broken, found.cells["arrives"].evidence[:7]) == (["live"], "stuck (")
        assert "not finished within 2 s without any progress" in found.notes


TALKATIVE = """
import sys
print('{"id": 1, "ok": true, "capabilities": ["kill"]}', flush=True)
sys.stdin.readline(), sys.stdin.readline()
print('connecting now', flush=True)
print('{"id": 2, "ok": true, "position": "x"}', flush=True)
print('{"id": 2, "ok": true}', flush=True)
sys.stdin.read()
"""


async def test_what_a_program_writes_that_is_no_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(30), Program([sys.executable, "-c", TALKATIVE]) as program:
        assert (await program.ask("create", stream="a")).ok
    told = [record.getMessage() for record in caplog.records if "no answer" in record.getMessage()]
    assert len(told) == 2
    assert "connecting now" in told[0]
    assert "$.position" in told[1]
