"""How many files and sockets this process may have open at once.

`unbroken serve` and the bench raise it as far as they need and may; what is bounded by it asks here. Systems give a process
fewer (1,024 is usual) than it may ask for, because of programs that use `select`; no part of ours does.
"""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["allow_open_files", "open_files_max"]

if sys.platform == "win32":

    def open_files_max() -> int:
        """No bound that would be known."""
        return sys.maxsize

    def allow_open_files(count: int) -> int:  # noqa: ARG001 - as elsewhere
        """Nothing is to be done."""
        return sys.maxsize

else:
    import resource

    def open_files_max() -> int:
        """How many this process may have open: its soft limit."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft

    def allow_open_files(count: int) -> int:
        """Let this process, and those it starts, have `count` open, or as many as it may ask for; how many that are.

        It is never made fewer. What the system refuses is left as it is.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return open_files_max()
