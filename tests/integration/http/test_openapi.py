"""The OpenAPI document says what the HTTP face does: compared with the routes, and tried against a real server."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.routing import Route

from tests.support.commands import finish
from tests.support.inprocess import Served, served
from tests.support.provision_scan import Scanners
from tests.support.server import ServerProcess
from unbroken.auth.access import Access
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server import http
from unbroken.server.app import build_services
from unbroken.server.openapi import OPERATIONS, openapi
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

EXAMPLES = os.environ.get("UNBROKEN_SCHEMATHESIS_EXAMPLES", "2")
CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
    ]
)
SECONDS_MAX = 1_200.0


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served() as made:
        yield made


def test_every_path_and_method_is_described_and_nothing_else() -> None:
    services = build_services(MemoryStore(limits=DEFAULT_LIMITS), Access())
    found: dict[str, set[str]] = {}
    for route in http.routes(services):
        assert isinstance(route, Route)
        methods = set(route.app._handlers) - {"HEAD"}  # type: ignore[attr-defined]
        found[route.path.replace(":path", "")] = methods
    assert found == {path: set(methods) for path, methods in OPERATIONS.items()}


@pytest.mark.parametrize("path", [path for path, methods in OPERATIONS.items() if "GET" in methods])
async def test_every_parameter_is_described_and_nothing_else(server: Served, path: str) -> None:
    await server.client.put("/v1/streams/a")
    await server.client.put("/v1/sessions/a")
    problem = await server.problem(400, "invalid", "GET", path.replace("{name}", "a"), params={"zzz": "1"})
    known = re.search(r"known are (.*)$", problem["detail"])
    assert known is not None
    assert {name for name in known[1].split(", ") if name} == set(OPERATIONS[path]["GET"].query)


async def test_it_is_served(server: Served) -> None:
    assert await server.answer(200, "GET", "/v1/openapi.json") == openapi()


async def test_what_is_tried_by_it_is_answered_as_it_says(tmp_path: Path, scanners: Scanners) -> None:
    """Requests that follow the document, and some that do not: no failure, and every answer as it is described."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    async with ServerProcess(tmp_path, arguments=("--tasks", "tests.support.tasks"), environment=environment) as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            for name in ("0", "a"):
                (await client.put(f"/v1/streams/{name}")).raise_for_status()
        process = await asyncio.create_subprocess_exec(
            *(scanners.program("schemathesis"), "run", f"{server.url}/v1/openapi.json", "--checks", CHECKS),
            *("--phases", "fuzzing", "--max-examples", EXAMPLES, "--request-timeout", "60", "--no-color"),
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "*", "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        done = await finish(process, seconds=SECONDS_MAX)
        assert "unexpected error" not in server.output
    assert done.status == 0, done.text[-6_000:]
    tested = re.search(r"Tested: (\d+)", done.text)
    assert tested is not None
    assert int(tested[1]) > 25, "the document was not understood"
