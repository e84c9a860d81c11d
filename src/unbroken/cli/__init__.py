"""The command `unbroken`: its entry point.

The console script and `python -m unbroken` call `main`. It imports nothing heavy: each verb imports what it needs when it
runs.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    import sys

    from unbroken.cli.app import execute

    sys.exit(execute(sys.argv[1:]))
