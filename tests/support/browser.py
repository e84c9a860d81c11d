"""Owns the start of a real Chromium under Playwright's asyncio interface.

Called by the `browser` fixture of tests/conftest.py, and by tests that need a browser of their own (a kept profile,
other arguments). It never downloads a browser: that is provision's work.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Error, Playwright, async_playwright

from tests.support.provision_node import playwright_node

BROWSER_ARGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@asynccontextmanager
async def open_playwright() -> AsyncIterator[Playwright]:
    """Playwright's driver, under a Node that starts on this machine."""
    if "PLAYWRIGHT_NODEJS_PATH" not in os.environ and (node := playwright_node()) is not None:
        os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(node)
    async with async_playwright() as playwright:
        yield playwright


@asynccontextmanager
async def open_firefox(executable: Path) -> AsyncIterator[Browser]:
    """One Firefox process, driven over WebDriver BiDi; started again once, since it does not always begin to listen."""
    async with open_playwright() as playwright:
        options: dict[str, object] = {"channel": "moz-firefox", "executable_path": executable}
        try:
            browser = await playwright.firefox.launch(**options)  # type: ignore[arg-type]
        except Error:
            browser = await playwright.firefox.launch(**options)  # type: ignore[arg-type]
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_browser(executable: Path, *, extra_args: Sequence[str] = ()) -> AsyncIterator[Browser]:
    """One Chromium process, closed on the way out. Each test takes a context of its own from it."""
    async with open_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, chromium_sandbox=False, args=[*BROWSER_ARGS, *extra_args]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_profile(executable: Path, profile: Path) -> AsyncIterator[BrowserContext]:
    """One Chromium process on a profile folder that outlives it: closing and reopening it is a browser restart."""
    async with open_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile, executable_path=executable, chromium_sandbox=False, args=list(BROWSER_ARGS)
        )
        try:
            yield context
        finally:
            await context.close()
