"""Owns how the tests come by what looks at the project from outside: bandit, semgrep and schemathesis.

Called by `provision`, which may fetch, and by whoever runs one of them, which only looks. They stand in an environment of
their own: they need other versions of what we need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.environments import environment_folder, provide_environment

__all__ = ["Scanners", "find_scanners", "provide_scanners"]

NAME = "scan"
PROGRAMS = ("bandit", "schemathesis", "semgrep")


@dataclass(frozen=True, slots=True)
class Scanners:
    """The folder with their programs."""

    folder: Path

    def program(self, name: str) -> Path:
        """One of them."""
        assert name in PROGRAMS
        return self.folder / name


def find_scanners() -> Scanners | None:
    """The environment that the lock file describes, if it is there."""
    folder = environment_folder(NAME) / "bin"
    return Scanners(folder) if all((folder / name).is_file() for name in PROGRAMS) else None


def provide_scanners() -> Scanners | None:
    """`find_scanners`, else make the environment."""
    if find_scanners() is None:
        provide_environment(NAME)
    return find_scanners()
