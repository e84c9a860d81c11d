"""The verb completion.

It prints a script and installs nothing by itself.
"""

from __future__ import annotations

import sys
from typing import Literal

from unbroken.cli.exits import Exit

__all__ = ["completion"]


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the completion script for a shell, for example: unbroken completion bash > ~/.bash_completion.

    Args:
        shell: Which shell.
    """
    from unbroken.cli.app import build

    sys.stdout.write(build().generate_completion(shell=shell).rstrip() + "\n")
    return Exit.OK
