"""Owns the scan of our own sources, `python -m tests.scan`: bandit, with each finding answered, and semgrep with our rules.

`.ci/run` calls it. It asks nothing of anybody: advisories are looked up by the public CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.scan.answers import unanswered
from tests.support.provision_scan import Scanners, find_scanners

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS_MAX = 400


def main() -> int:
    """0 when nothing is found that is not answered; 69 without the scanners."""
    scanners = find_scanners()
    if scanners is None:
        print("the environment of requirements/scan.txt is not provisioned; ./run test provisions it", file=sys.stderr)
        return 69
    wrong = [*unanswered(_bandit(scanners)), *_semgrep(scanners)]
    for line in wrong:
        print(line)
    print("nothing found" if not wrong else f"{len(wrong)} found")
    return 1 if wrong else 0


def _bandit(scanners: Scanners) -> list[dict[str, Any]]:
    arguments = ["--quiet", "--recursive", "src", "--format", "json"]
    found: list[dict[str, Any]] = _json([scanners.program("bandit"), *arguments], (0, 1))["results"]
    return found


def _semgrep(scanners: Scanners) -> list[str]:
    """What the rules find in the sources, and rules that do not find what was planted for them."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("planted.js", "planted.py.txt"):
            shutil.copyfile(HERE / name, Path(folder) / name.removesuffix(".txt"))
        arguments: list[str | Path] = [
            "--config",
            HERE / "rules.yml",
            "--metrics",
            "off",
            "--disable-version-check",
            "--quiet",
            "--json",
        ]
        found = _json([scanners.program("semgrep"), "scan", *arguments, "--no-git-ignore", "src", folder], (0,))
        results = [(one["check_id"].rpartition(".")[2], one["path"], one["start"]["line"]) for one in found["results"]]
        planted = {(Path(path).name, line) for _, path, line in results if path.startswith(folder)}
        wanted = {("planted.js", line) for line in range(2, 6)} | {("planted.py", line) for line in range(3, 9)}
        blunt = [f"no rule finds {name}:{line}" for name, line in sorted(wanted - planted)]
        return blunt + [f"{path}:{line}: {rule}" for rule, path, line in results if not path.startswith(folder)]


def _json(command: Sequence[str | Path], fine: tuple[int, ...]) -> Any:
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, timeout=SECONDS_MAX, check=False
    )
    if done.returncode not in fine:
        raise SystemExit(f"{command[0]} failed (exit {done.returncode}): {done.stderr.decode()[-2_000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
