"""The application is killed in mid-run: the stream says so afterwards, and what was seen before is still there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx2
import pytest

from tests.integration.embed.host import CEILING_SECONDS
from tests.support.server import ServerProcess
from unbroken import Client

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
ENDS_WITHIN_SECONDS = 10.0


class Victim(ServerProcess):
    def _command(self) -> list[str]:
        module = "tests.integration.embed.victim"
        return [sys.executable, "-m", module, str(self.port), f"sqlite:///{self.database}"]


@pytest.mark.scenario("TC-UT-003b")
async def test_a_run_of_a_killed_application_is_interrupted_and_its_text_readable(tmp_path: Path) -> None:
    async with Victim(tmp_path, environment={"PYTHONPATH": str(ROOT)}) as victim:
        base = f"{victim.url}/streams"
        async with httpx2.AsyncClient(timeout=CEILING_SECONDS, trust_env=False) as http:
            assert (await http.post(f"{victim.url}/count")).json() == "running"
            seen: list[str] = []
            restarted: float | None = None
            async with asyncio.timeout(60), Client(base) as client:
                follow = client.follow("count")
                async for received in follow:
                    assert received.seq == len(seen) + 1
                    seen.append(received.text or "")
                    if len(seen) == 30:
                        await victim.kill()
                        restarted = await _restart(victim)
                assert restarted is not None, "the fault must have bitten"
                assert asyncio.get_running_loop().time() - restarted < ENDS_WITHIN_SECONDS
                assert follow.state is not None
                assert follow.state.state == "interrupted"
            assert len(seen) >= 30
            assert "".join(seen) == "".join(f"{number}," for number in range(1, len(seen) + 1))
            view = (await http.get(f"{base}/v1/streams/count")).json()
            assert (view["head"], view["reason"]["cause"]) == (len(seen), "lease_expired")
            assert (await http.get(f"{base}/v1/verify/count")).json()["ok"]
            assert (await http.post(f"{victim.url}/count")).json() == "interrupted", "a taken name attaches"


async def _restart(victim: Victim) -> float:
    await victim.start()
    return asyncio.get_running_loop().time()
