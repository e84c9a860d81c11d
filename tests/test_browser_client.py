"""The browser client's own tests (tests/js), run as one, so that one command proves both languages."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.provision_node import ROOT, Node
from tests.support.requirement import missing

PROJECT = ROOT / "tests" / "js"
SECONDS_MAX = 110


@pytest.fixture
def packages() -> None:
    """The npm packages of tests/js."""
    if not (PROJECT / "node_modules").is_dir():
        missing("the npm packages of tests/js")


def test_the_browser_client_passes_its_own_tests(node: Node, packages: None) -> None:
    done = subprocess.run(
        [*node.npm, "run", "--silent", "test"],
        cwd=PROJECT,
        env=node.environment() | {"CI": "true", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
