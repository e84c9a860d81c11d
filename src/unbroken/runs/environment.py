"""What a process that we start gets of our own environment: never our secrets, and from a server not its settings.

Programs and helpers of the operator, tasks in processes of their own and the command of `unbroken run` get it. It only
chooses among variables; what an operator configures for one process is added by whoever starts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["SECRETS", "without_secrets", "without_settings"]

PREFIX: Final = "UNBROKEN_"
SECRETS: Final = frozenset({"UNBROKEN_TOKEN", "UNBROKEN_MCP_TOKEN", "UNBROKEN_ENCRYPTION_KEY"})
"""Those of our variables whose value is itself a secret."""


def without_settings(own: Mapping[str, str]) -> dict[str, str]:
    """`own` without every variable of ours, for what is not our code: it may print its environment, or pass it on."""
    return {name: value for name, value in own.items() if not name.upper().startswith(PREFIX)}


def without_secrets(own: Mapping[str, str]) -> dict[str, str]:
    """`own` without our secrets, for a task of the operator or a user's command: it may read our other settings."""
    return {name: value for name, value in own.items() if name.upper() not in SECRETS}  # settings know no case either
