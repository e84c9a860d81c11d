"""Owns the mistakes in the page and its client that only a real browser shows.

Part of the list of mutations.py. They change what the server serves, so that the tests named beside them start Chromium.
"""

from __future__ import annotations

from typing import Final

from tests.support.mutating import Mutation

__all__ = ["PAGE_MUTATIONS"]

SUSPENSION = ("tests/e2e/test_tab_suspension.py",)
TIME = ("tests/e2e/test_time_changes.py",)

PAGE_MUTATIONS: Final = (
    Mutation(
        "a page that was frozen trusts its old connection",
        "src/unbroken/web/client/wake.js",
        '  globalThis.document?.addEventListener("resume", thawed);\n',
        "",
        SUSPENSION,
    ),
    Mutation(
        "the time away begins when a freeze is over",
        "src/unbroken/web/view/model.js",
        "this.#lostAt = this.#frozenAt || Date.now();",
        "this.#lostAt = Date.now();",
        SUSPENSION,
    ),
    Mutation(
        "times stay in the zone in which they were written",
        "src/unbroken/web/view/app.js",
        "if (zoneChanged()) this.#log?.rewriteTimes();",
        "zoneChanged();",
        TIME,
    ),
    Mutation(
        "what is noted for a reload waits for the reader's clock",
        "src/unbroken/web/view/model.js",
        "    if (performance.now() - this.#rememberedAt > REMEMBER_MILLISECONDS) {\n"
        "      this.#rememberedAt = performance.now();\n",
        "    if (Date.now() - this.#rememberedAt > REMEMBER_MILLISECONDS) {\n      this.#rememberedAt = Date.now();\n",
        TIME,
    ),
)
