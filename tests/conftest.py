"""Owns what every test shares: the event loop, the browser, Hypothesis' profiles and the `browser` mark.

Called by pytest alone. It never starts the product: tests/support/server.py does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.async_api import Browser, BrowserContext, Page

from tests.support.browser import open_browser, open_firefox
from tests.support.provision import everything_required
from tests.support.provision_chromium import find_chromium
from tests.support.provision_firefox import find_firefox
from tests.support.provision_mcp_legacy import LegacySdk, find_mcp_legacy
from tests.support.provision_node import Node, find_node
from tests.support.provision_scan import Scanners, find_scanners
from tests.support.requirement import missing

pytest_plugins = ["tests.support.canary", "tests.support.server", "tests.support.fake_clock"]

# No deadline: two busy cores say nothing about an example. The blob reproduces a failure; `ci` looks further.
settings.register_profile(
    "local", deadline=None, print_blob=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("local"), derandomize=False, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if everything_required(os.environ) else "local"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Chromium, so that `-m "not browser"` leaves exactly that out."""
    for item in items:
        if "chromium_path" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One asyncio loop for the session, so that a session's fixtures and its tests share it."""
    return "asyncio"


@pytest.fixture(scope="session")
def node() -> Node:
    """Node with npm, from PATH or from the locked wheel."""
    found = find_node()
    if found is None:
        missing("Node")
    return found


@pytest.fixture(scope="session")
def mcp_legacy() -> LegacySdk:
    """A Python with the MCP SDK of the old protocol."""
    found = find_mcp_legacy()
    if found is None:
        missing("the old MCP SDK")
    return found


@pytest.fixture(scope="session")
def scanners() -> Scanners:
    """What looks at the project from outside, in an environment of its own."""
    found = find_scanners()
    if found is None:
        missing("the environment of requirements/scan.txt")
    return found


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """A Chromium that starts."""
    found = find_chromium()
    if found is None:
        missing("Chromium")
    return found.path


@pytest.fixture(scope="session")
async def browser(anyio_backend: str, chromium_path: Path) -> AsyncIterator[Browser]:
    """One Chromium for the session."""
    async with open_browser(chromium_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def firefox_path() -> Path:
    """A Firefox that starts; not to be had everywhere."""
    found = find_firefox()
    if found is None:
        pytest.skip("not run: no Firefox here, and no apt to unpack one (UNBROKEN_FIREFOX names one)")
    return found.path


@pytest.fixture(scope="session")
async def firefox(anyio_backend: str, firefox_path: Path) -> AsyncIterator[Browser]:
    """One Firefox for the session."""
    async with open_firefox(firefox_path) as opened:
        yield opened


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A fresh profile for one test: no cookie and no storage of another."""
    opened = await browser.new_context()
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    """A tab in that profile."""
    return await context.new_page()
