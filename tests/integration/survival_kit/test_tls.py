"""`unbroken verify-server` over TLS: faults are in the way of the bytes, and the certificate is still the server's own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.commands import Commands, Finished
from tests.support.server import ServerProcess, free_port
from unbroken.cli.exits import Exit

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]

ROOT = Path(__file__).resolve().parents[3]
WHOLE = os.environ.get("UNBROKEN_SURVIVAL") == "whole"
SECONDS_MAX = 100.0


@pytest.fixture
def unbroken(tmp_path: Path) -> Commands:
    return Commands(tmp_path, "http://127.0.0.1:1")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For the name `localhost` and not for 127.0.0.1, where the fault proxies are."""
    return make_certificate(tmp_path / "server.pem", by_address=False)


def ours(certificate: Path) -> str:
    store = "sqlite:///{directory}/unbroken.db"
    return f"{sys.executable} -m unbroken serve --port {{port}} --store {store} --tls-cert {certificate}"


def small(certificate: Path) -> str:
    program = f"{ROOT}/tests/support/log_server.py --port {{port}} --directory {{directory}}"
    return f"env PYTHONPATH={ROOT} {sys.executable} {program} --certificate {certificate}"


async def verified(unbroken: Commands, address: str, *arguments: str) -> tuple[Finished, dict[str, set[str]], int]:
    """The command's end, the outcomes by scenario, and how often the faults bit."""
    file = unbroken.home / "card.json"
    done = await unbroken("verify-server", address, *arguments, "--json", str(file), seconds=SECONDS_MAX)
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    outcomes = {row["name"]: {cell["outcome"] for cell in row["cells"].values()} for row in rows}
    return done, outcomes, sum(row["bites"] for row in rows)


@pytest.mark.parametrize(
    ("scheme", "adapter", "scenario"),
    [("wss", "unbroken", "cut")]
    + [("https", "unbroken", "kill"), ("https", "durable-streams", "retry"), ("https", "unbroken", "weather")] * WHOLE,
)
async def test_our_own_server_keeps_everything_over_tls(
    unbroken: Commands, certificate: Path, scheme: str, adapter: str, scenario: str
) -> None:
    arguments = ["--adapter", adapter, "--start", ours(certificate), "--ca-file", str(certificate), "--only", scenario]
    done, outcomes, bites = await verified(unbroken, f"{scheme}://localhost:{free_port()}", *arguments)
    assert done.status == Exit.OK, done.text + done.err
    assert outcomes == {scenario: {"pass"}}
    assert bites > 0


@pytest.mark.parametrize("adapter", ["websocket", *["sse"] * WHOLE])
async def test_the_plain_adapters_speak_tls_too(unbroken: Commands, certificate: Path, adapter: str) -> None:
    scheme = "wss" if adapter == "websocket" else "https"
    arguments = [
        "--adapter",
        adapter,
        "--start",
        small(certificate),
        "--ca-file",
        str(certificate),
        "--only",
        "reconnect",
    ]
    done, outcomes, bites = await verified(unbroken, f"{scheme}://localhost:{free_port()}", *arguments)
    assert done.status == Exit.OK, done.text + done.err
    assert outcomes == {"reconnect": {"pass"}}
    assert bites > 0


async def test_a_program_is_told_whose_certificate_it_is(unbroken: Commands, certificate: Path) -> None:
    port = free_port()
    command = f"env PYTHONPATH={ROOT} {sys.executable} -m tests.support.line_adapter"
    arguments = ["--command", command, "--start", small(certificate), "--ca-file", str(certificate), "--only", "steady"]
    done, outcomes, _ = await verified(unbroken, f"https://localhost:{port}", *arguments)
    assert done.status == Exit.OK, done.text + done.err
    assert outcomes == {"steady": {"pass"}}


async def test_a_certificate_that_is_not_trusted_or_not_for_the_name_ends_it_at_once(
    unbroken: Commands, certificate: Path, tmp_path: Path
) -> None:
    other = make_certificate(tmp_path / "other.pem")
    async with ServerProcess(tmp_path, arguments=("--tls-cert", str(certificate))) as server:
        for host, trusted, reason in [
            ("localhost", ["--ca-file", str(other)], "is not trusted"),
            ("localhost", [], "is not trusted"),
            ("127.0.0.1", ["--ca-file", str(certificate)], "IP address mismatch"),
        ]:
            done, outcomes, _ = await verified(unbroken, f"https://{host}:{server.port}", *trusted)
            assert (done.status, outcomes) == (Exit.UNAVAILABLE, {}), done.text + done.err
            assert reason in done.err
    done, _, _ = await verified(unbroken, "https://localhost:1", "--ca-file", str(tmp_path / "none.pem"))
    assert done.status == Exit.CONFIGURATION
