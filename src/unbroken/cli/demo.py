"""The verb demo: the demonstration, for people or unattended.

The demonstration itself is `unbroken.demo`; this only gives it a directory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unbroken.cli.connection import run_async
from unbroken.cli.exits import Exit

__all__ = ["demo"]


def demo(*, once: Annotated[bool, Parameter(negative="")] = False, port: int = 0) -> int:
    """Start a server and streams to watch, reload and kill; Ctrl-C ends it.

    Args:
        once: Unattended: stream, kill and restart the server in mid-stream, count what was lost and doubled, and exit
            with 0 when that is nothing, else with 1.
        port: The server's port; by default a free one.
    """
    from unbroken.demo.live import run_live
    from unbroken.demo.once import run_once

    with tempfile.TemporaryDirectory(prefix="unbroken-demo-", ignore_cleanup_errors=True) as directory:
        if not once:
            return run_async(run_live(Path(directory), port))
        report = run_async(run_once(Path(directory)))
    return Exit.OK if report.passed else Exit.FAILED
