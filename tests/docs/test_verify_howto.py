"""The commands and the adapter in docs/howto/verify-server.md do what it says, and its tables name what there is."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.support.certificates import make_certificate
from tests.support.commands import Commands
from tests.support.server import free_port
from unbroken.testing.survival import ADAPTERS, ASPECTS, Capability, Outcome, Target, scenarios, survive

pytestmark = pytest.mark.anyio

HOWTO = "docs/howto/verify-server.md"
OURS, OVER_TLS, THEIRS = (block.text for block in blocks(HOWTO) if block.language == "sh")


async def test_the_command_works_on_our_server(tmp_path: Path) -> None:
    words = shlex.split(OURS)
    assert words[:3] == ["unbroken", "verify-server", "--start"]
    start = words[3].replace("unbroken serve", f"{shlex.join(Commands.program)} serve")
    done = await Commands(tmp_path, "")(*words[1:3], start, *words[4:], "--only", "steady")
    assert done.status == 0, done.err
    assert done.text.splitlines()[1].split() == ["steady", *["pass"] * len(ASPECTS), "120", "0"]


async def test_the_command_works_over_tls(tmp_path: Path) -> None:
    certificate = str(make_certificate(tmp_path / "server.pem", by_address=False))
    words = shlex.split(OVER_TLS.replace("/etc/unbroken/server.pem", certificate).replace("8443", str(free_port())))
    assert words[1:4] == ["verify-server", words[2], "--ca-file"]
    start = words[6].replace("unbroken serve", f"{shlex.join(Commands.program)} serve")
    done = await Commands(tmp_path, "")(*words[1:6], start, "--only", "steady")
    assert done.status == 0, done.err


def test_the_command_for_the_reference_server_is_the_one_that_is_tested() -> None:
    words = shlex.split(THEIRS)
    assert words[:4] == ["unbroken", "verify-server", "--adapter", "durable-streams"]
    assert words[5] == "node reference.mjs {port} {directory}"
    assert (ROOT / "tests/conformance/reference.mjs").exists()


async def test_the_adapter_of_the_example_is_one() -> None:
    (block,) = [block for block in blocks(HOWTO) if block.language == "python"]
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.text, HOWTO, "exec"), names)
    kind = names["ListAdapter"]

    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        target = Target(f"http://127.0.0.1:{port}", kind, kind.capabilities)
        chosen = [scenario for scenario in scenarios() if scenario.name in {"steady", "kill", "end"}]
        steady, kill, end = await survive(target, chosen, seed=1, label="x")
    assert (steady.outcome, kill.outcome, end.outcome) == (Outcome.PASS, Outcome.NOT_CLAIMED, Outcome.NOT_CLAIMED)


def test_the_tables_name_every_column_scenario_adapter_and_capability() -> None:
    text = (ROOT / HOWTO).read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:--adapter )?([a-z-]+)`", text))
    assert set(ASPECTS) | set(ADAPTERS) - {"unbroken"} | {scenario.name for scenario in scenarios()} <= named
    assert [capability for capability in Capability if f'"{capability}"' not in text] == []
