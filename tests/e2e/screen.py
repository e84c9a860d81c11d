"""Owns how a test looks at the page, as a reader does: its text, its rules, its words, and what the browser complained about.

Used by the end-to-end tests. It never reaches into the page's own code: it reads the document only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import ConsoleMessage, Error, Page

__all__ = ["NO_WEBSOCKETS", "PATIENCE_MILLISECONDS", "TEXT", "Screen"]

PATIENCE_MILLISECONDS = 100_000
"""How long a wait may take on a busy machine; none is ever waited for in full when all is well."""

NO_WEBSOCKETS = """
window.WebSocket = class {
  constructor() { setTimeout(() => this.onclose({ code: 1006 })); }
  send() { throw new Error("never open"); }
  close() {}
};
"""
"""What a page sees behind a proxy that refuses the upgrade: a close with 1006, never an open."""

_WATCH = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
"""
TEXT = "[...document.querySelectorAll('[data-testid=content] .block')].map((block) => block.textContent).join('')"
_AT_LEAST = (
    "(count) => ([...document.querySelectorAll('[data-testid=content] .block')]"
    ".map((block) => block.textContent).join('').match(/w[0-9]+ /g) ?? []).length >= count"
)


class Screen:
    """One page and everything that it shows or complains about."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.dialogs: list[str] = []

    @classmethod
    async def watch(cls, page: Page, url: str) -> Screen:
        """Begin to listen, before the first address is opened."""
        screen = cls(page, url)
        await page.add_init_script(_WATCH)
        page.on("console", screen._console)
        page.on("pageerror", screen._failed)
        page.on("dialog", lambda dialog: screen.dialogs.append(dialog.message))
        return screen

    async def open(self, stream: str, view: str | None = None) -> None:
        """Open a stream in the page by its address."""
        query = "" if view is None else f"?view={view}"
        await self.page.goto(f"{self.url}/#/stream/{stream}{query}")
        await self.page.get_by_test_id("stream").wait_for(timeout=PATIENCE_MILLISECONDS)

    async def text(self) -> str:
        """All messages on the page as text, without the rules between them."""
        text: str = await self.page.evaluate(TEXT)
        return text

    async def words(self) -> list[int]:
        """The numbers of the words `w0 w1 …` on the page, in order of appearance."""
        return [int(number) for number in re.findall(r"w(\d+) ", await self.text())]

    async def until_words(self, count: int) -> None:
        """Wait until at least `count` words are shown."""
        await self.page.wait_for_function(_AT_LEAST, arg=count, timeout=PATIENCE_MILLISECONDS)

    async def until_badge(self, state: str) -> None:
        """Wait until the connection badge shows `state`."""
        await self.page.locator(f"[data-testid=badge][data-state={state}]").wait_for(timeout=PATIENCE_MILLISECONDS)

    async def until_resumed(self, count: int = 1) -> list[str]:
        """Wait until `count` resume rules say what was lost; gives their words."""
        settled = self.page.locator("[data-testid=resume-rule]", has_text="lost")
        await settled.nth(count - 1).wait_for(timeout=PATIENCE_MILLISECONDS)
        return await settled.all_inner_texts()

    async def violations(self) -> list[str]:
        """What the Content-Security-Policy has stopped since the last load."""
        found: list[str] = await self.page.evaluate("window.__violations")
        return found

    async def overflow(self) -> int:
        """By how many pixels the document is wider than the window."""
        pixels: int = await self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return pixels

    async def picture(self, name: str) -> None:
        """Keep a screenshot when `UNBROKEN_PICTURES` names a folder."""
        folder = os.environ.get("UNBROKEN_PICTURES")
        if folder:
            await self.page.screenshot(path=Path(folder) / f"{name}.png")

    def clean(self, *, allowed: Sequence[str] = ()) -> list[str]:
        """What the browser's console complained about, but for what a test has caused on purpose."""
        return [complaint for complaint in self.complaints if not any(word in complaint for word in allowed)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def _failed(self, error: Error) -> None:
        self.complaints.append(f"uncaught: {error.message}")
