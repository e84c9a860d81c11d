"""Children that end when we do, however we end: on Linux the kernel kills them at our death.

For commands of others `setpriv` asks the kernel for that, where util-linux has brought it; our own children ask themselves.
The kernel means the thread that started the child: that is the event loop's, which ends after everything that runs in it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["end_with_parent", "tied"]

PR_SET_PDEATHSIG: Final = 1
TRIAL_SECONDS: Final = 10.0
ORPHANED: Final = 1


async def tied(command: Sequence[str], *, environment: Mapping[str, str], cwd: str | None = None) -> tuple[str, ...]:
    """`command`, so that the kernel kills its process when ours dies; as it is, where that is not to be had.

    A command that cannot be found is left as it is too, so that starting it fails as it would. Not covered are a death in
    the moment between the start and `setpriv`'s request, programs with privileges of their own, and grandchildren.
    """
    setpriv = await asyncio.to_thread(_setpriv)
    if setpriv is None or not _found(command[0], environment, cwd):
        return tuple(command)
    return (setpriv, "--pdeathsig", "KILL", "--", *command)


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent, `parent`, dies; end now if it has died already."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        return
    if os.getppid() != parent:
        os._exit(ORPHANED)


@cache
def _setpriv() -> str | None:
    """A `setpriv` that knows what is wanted of it: that of BusyBox does not."""
    path = shutil.which("setpriv") if sys.platform == "linux" else None
    if path is None:
        return None
    try:
        trial = subprocess.run(  # noqa: S603 - the system's own tool
            [path, "--pdeathsig", "KILL", "--", path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if trial.returncode == 0 else None


def _found(command: str, environment: Mapping[str, str], cwd: str | None) -> bool:
    if os.sep in command:
        path = Path(cwd or ".") / command
        return path.is_file() and os.access(path, os.X_OK)
    return shutil.which(command, path=environment.get("PATH", os.defpath)) is not None
