"""Owns the answers to what bandit says of our sources: why each finding is as it should be.

`python -m tests.scan` and a test use it. An answer to nothing is wrong too, so that none outlives its finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["EVERYWHERE", "ONCE", "unanswered"]

EVERYWHERE: Final = {
    "B101": "assertions are our own bugs, and crash the task",
    "B311": "chance that is no secret: pauses between tries, and simulated worlds; secrets come from the module of that name",
    "B404": "starting programs is what `unbroken run`, programs and MCP servers are for",
    "B603": "always a list of arguments, never a shell",
}
ONCE: Final = {
    ("B105", "src/unbroken/cli/simulate.py"): "a verdict",
    ("B105", "src/unbroken/store/sqlite/salvage/salvage.py"): "a sentence about tokens",
    ("B105", "src/unbroken/testing/history_report.py"): "a verdict",
    ("B105", "src/unbroken/testing/survival/scorecard.py"): "a verdict",
    ("B106", "src/unbroken/server/entrance.py"): "no password: an encrypted key is refused rather than asked about",
    ("B108", "src/unbroken/testing/simulation/run.py"): "a folder of our own is made in it",
    ("B405", "src/unbroken/testing/survival/reports.py"): "XML is written, never read",
    ("B604", "src/unbroken/cli/completion.py"): "the name of a shell, for its completion script",
}


def unanswered(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """What has no answer, and the answers to nothing."""
    left = set(ONCE)
    wrong: list[str] = []
    for one in results:
        place = (one["test_id"], one["filename"].removeprefix("./"))
        if place in ONCE:
            left.discard(place)
        elif one["test_id"] not in EVERYWHERE:
            wrong.append(f"{one['filename']}:{one['line_number']}: {one['test_id']} {one['issue_text']}")
    return wrong + [f"nothing is found any more: {name} in {path}" for name, path in sorted(left)]
