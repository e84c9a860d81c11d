"""`unbroken verify-server` as a user runs it: on our own server, on the reference of Durable Streams, and on mistakes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.commands import Commands, Finished
from tests.support.log_server import Sabotage
from tests.support.provision_node import Node
from tests.support.requirement import missing
from tests.support.server import ServerProcess, free_port
from unbroken.cli.exits import Exit

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]

ROOT = Path(__file__).resolve().parents[3]
CONFORMANCE = ROOT / "tests" / "conformance"
WHOLE = os.environ.get("UNBROKEN_SURVIVAL") == "whole"
"""Every scenario on every server; the suite runs those that a broken server of each kind would fail."""
OURS = () if WHOLE else ("cut", "kill", "retry")
THEIRS = () if WHOLE else ("cut", "retry")
SECONDS_MAX = 100.0


def only(names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in ("--only", name)]


def serve(sabotage: Sabotage) -> str:
    program = f"{ROOT}/tests/support/log_server.py"
    return f"env PYTHONPATH={ROOT} {sys.executable} {program} --port {{port}} --directory {{directory}} --sabotage {sabotage}"


@pytest.fixture
def unbroken(tmp_path: Path) -> Commands:
    return Commands(tmp_path, "http://127.0.0.1:1")


async def verified(unbroken: Commands, *arguments: str) -> tuple[Finished, dict[str, Any]]:
    """The command's end and what it wrote down as JSON."""
    file = unbroken.home / "card.json"
    done = await unbroken("verify-server", *arguments, "--json", str(file), seconds=SECONDS_MAX)
    return done, json.loads(file.read_text()) if file.exists() else {}


def outcomes(card: dict[str, Any]) -> dict[str, set[str]]:
    return {row["name"]: {cell["outcome"] for cell in row["cells"].values()} for row in card["rows"]}


@pytest.mark.parametrize("adapter", ["unbroken", "durable-streams"])
async def test_our_own_server_keeps_everything(unbroken: Commands, adapter: str) -> None:
    start = f"{sys.executable} -m unbroken serve --port {{port}} --store sqlite:///{{directory}}/unbroken.db"
    names = OURS if adapter == "unbroken" or WHOLE else ("retry", "end")
    done, card = await verified(unbroken, "--start", start, "--adapter", adapter, *only(names))
    assert done.status == Exit.OK, done.text + done.err
    assert all(found == {"pass"} for found in outcomes(card).values()), card
    assert all(row["bites"] > 0 for row in card["rows"] if row["name"] in OURS)
    assert f"seed {card['seed']}" in done.text
    assert done.text.splitlines()[0].split()[:3] == ["scenario", "kept", "once"]


async def test_a_server_that_runs_already_is_left_running_and_clean(unbroken: Commands, tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        done, card = await verified(unbroken, server.url, *only(("steady", "kill")), "--seed", "7")
        assert done.status == Exit.OK, done.text + done.err
        assert outcomes(card) == {"steady": {"pass"}, "kill": {"not run"}}
        assert card["seed"] == 7
        assert "--start" in done.err
        assert server.running
        listed = await unbroken("ls", "--json", "--server", server.url)
        assert listed.objects == []


async def test_the_reference_server_of_durable_streams_on_its_file_store(unbroken: Commands, node: Node) -> None:
    if not (CONFORMANCE / "node_modules" / "@durable-streams" / "server").is_dir():
        missing("the npm packages of tests/conformance")
    start = f"{node.path} {CONFORMANCE / 'reference.mjs'} {{port}} {{directory}}"
    done, card = await verified(unbroken, "--start", start, "--adapter", "durable-streams", *only(THEIRS))
    found = outcomes(card)
    assert [found[name] for name in ("cut", "retry")] == [{"pass"}, {"pass"}], done.err
    assert WHOLE or done.status == Exit.OK


async def test_a_failure_is_told_with_its_rule_and_witness_on_every_paper(unbroken: Commands) -> None:
    junit, page = unbroken.home / "card.xml", unbroken.home / "card.html"
    arguments = ["--adapter", "sse", "--start", serve(Sabotage.REORDERS_ON_RESUME), *only(("cursors",))]
    done, card = await verified(unbroken, *arguments, "--junit", str(junit), "--html", str(page))
    assert done.status == Exit.FAILED
    (row,) = card["rows"]
    cell = row["cells"]["unbroken"]
    assert (cell["outcome"], cell["rule"]) == ("fail", "dense")
    assert "reorder (observer=from-1, position=2, behind=3)" in cell["evidence"]
    assert cell["evidence"] in done.err
    assert {event["event"] for event in row["history"]} >= {"invoke", "ack", "open", "deliver", "final"}
    (suite,) = ElementTree.parse(junit).iter("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("7", "1")
    assert [failure.get("message") for failure in suite.iter("failure")] == [f"dense: {cell['evidence']}"]
    assert "reorder (observer=from-1" in page.read_text()
    assert "<script" not in page.read_text()


async def test_mistakes_are_told_by_their_exit_codes(unbroken: Commands) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for arguments, status in [
        ([nobody], Exit.UNAVAILABLE),
        ([nobody, "--only", "nonsense"], Exit.USAGE),
        (["--command", "/no/such/program"], Exit.CONFIGURATION),
        ([], Exit.CONFIGURATION),
        (["--command", "false"], Exit.CONFIGURATION),
        (["--command", " "], Exit.CONFIGURATION),
        (["--start", "false"], Exit.UNAVAILABLE),
        (["--start", "no-such-server {port}"], Exit.CONFIGURATION),
        (["--start", "serve 'it"], Exit.CONFIGURATION),
        (["--start", "/"], Exit.CONFIGURATION),
        ([nobody, "--json", "/no/such/folder/card.json"], Exit.CONFIGURATION),
        ([nobody, "--seconds", "-1"], Exit.USAGE),
        ([nobody, "--quiet", "0"], Exit.USAGE),
    ]:
        done = await unbroken("verify-server", *arguments)
        assert done.status == status, (arguments, done.err)
        assert "Traceback" not in done.err
