"""Owns the run of mutmut over the pure modules: every small change of them, each tried against their unit tests.

`python -m tests.every_mutation [MODULE...]` does it in a copy of the checkout and counts what survived, by module. It needs
mutmut (`pip install mutmut==3.8.1`), which is no requirement of the tests. It never judges: a survivor may be equivalent.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.mutating import copied

__all__ = ["MODULES", "main", "summary"]

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "protocol/backoff": ("tests/unit/client/test_reconnect.py", "tests/unit/protocol"),
    "protocol/chain": ("tests/unit/protocol", "tests/integration/store/test_append.py"),
    "protocol/client_subscription": ("tests/unit/protocol",),
    "protocol/client_requests": ("tests/unit/protocol", "tests/unit/client/test_reconnect.py"),
    "store/decide": (
        "tests/integration/store/test_append.py",
        "tests/integration/store/test_life_cycle.py",
        "tests/integration/store/test_told.py",
    ),
    "testing/history_check": ("tests/unit/testing/test_history.py",),
}
"""The modules without input, output or clock, and the tests that hold them."""
SECONDS_MAX = 3600
UNAVAILABLE = 69


def configuration(modules: Sequence[str]) -> str:
    """What is appended to the copy's pyproject.toml."""
    files = [f"src/unbroken/{module}.py" for module in modules]
    tests = sorted({test for module in modules for test in MODULES[module]})
    return (
        f'\n[tool.mutmut]\nsource_paths = ["src"]\nonly_mutate = {files}\n'
        f"pytest_add_cli_args_test_selection = {tests}\n"
        'pytest_add_cli_args = ["-p", "no:cacheprovider"]\n'
        'also_copy = ["README.md", "docs"]\nuse_git_change_detection = false\n'
    )


def summary(results: str) -> list[tuple[str, Counter[str]]]:
    """mutmut's results as counts of each outcome, by module."""
    found: dict[str, Counter[str]] = {}
    for module, outcome in re.findall(r"^\s*unbroken\.([\w.]+)\.x\S*__mutmut_\d+: (.+)$", results, re.MULTILINE):
        found.setdefault(module, Counter())[outcome] += 1
    return sorted(found.items())


def run(folder: Path, *arguments: str) -> str:
    """One command of mutmut in the copy, with the copy's own tests and sources."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    ).stdout


def main(names: Sequence[str]) -> int:
    """Try everything in all modules, or in those named."""
    unknown = sorted(set(names) - MODULES.keys())
    if unknown:
        print(f"no such module: {', '.join(unknown)}; there are {', '.join(MODULES)}", file=sys.stderr)
        return 2
    if importlib.util.find_spec("mutmut") is None:
        print("mutmut is not installed: pip install mutmut==3.8.1", file=sys.stderr)
        return UNAVAILABLE
    with copied() as folder:
        with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write(configuration(list(names) or list(MODULES)))
        run(folder, "run", "--max-children", "1")
        results = run(folder, "results", "--all", "true")
    rows = summary(results)
    for module, outcomes in rows:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        print(f"{module}: {counts}")
    for line in re.findall(r"^\s*(\S+): survived$", results, re.MULTILINE):
        print(f"survived: {line}")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
