"""The pieces that the browser tests stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.support import provision_chromium
from tests.support.provision import everything_required
from tests.support.provision_chromium import ProvisionError, find_chromium
from tests.support.provision_node import Node, version_of
from tests.support.requirement import missing

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("environment", "required"),
    [({}, False), ({"CI": "true"}, True), ({"CI": "false"}, False), ({"UNBROKEN_REQUIRE": "all"}, True)],
)
def test_missing_pieces_are_errors_in_continuous_integration_only(environment: dict[str, str], required: bool) -> None:
    assert everything_required(environment) is required


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_test_without_its_equipment_says_so(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("UNBROKEN_REQUIRE", raising=False)
    with pytest.raises(outcome, match="a telescope is not provisioned"):
        missing("a telescope")


def test_a_named_browser_that_does_not_start_is_refused_not_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNBROKEN_CHROMIUM", str(tmp_path / "absent"))
    with pytest.raises(ProvisionError, match="does not start"):
        find_chromium()


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBROKEN_CACHE", str(tmp_path))
    assert provision_chromium.cache_folder() == tmp_path


def test_node_starts(node: Node) -> None:
    assert version_of(node.path) == f"v{node.version}"


async def test_the_browser_runs_script_and_reloads(page: Page) -> None:
    await page.goto("data:text/html,<title>one</title><script>document.title += ' two'</script>")
    assert await page.title() == "one two"
    await page.reload()
    assert await page.title() == "one two"
    assert await page.evaluate("typeof WebSocket + typeof EventSource") == "functionfunction"
