"""Unbroken: streams that survive the reload, the lost network, the crash and the restart.

The package's public names are imported from here, each only when it is asked for: a client never loads the server
(type checkers read `__init__.pyi`). Applications import it; it never starts anything by being imported.
"""

from __future__ import annotations

from importlib import import_module

__all__ = [
    # in an application
    "Unbroken",
    "Followed",
    "StreamInfo",
    # runs
    "task",
    "TaskOptions",
    "RunContext",
    "RunEnded",
    # a client of a server
    "Client",
    "SyncClient",
    "Follow",
    "Producer",
    "Received",
    "Appended",
    "ConnectionStatus",
    # values of both
    "Message",
    "NewMessage",
    "Cursor",
    "StreamState",
    "Principal",
    "Grant",
    "Verb",
    "Limits",
    "UnbrokenError",
]

__version__ = "0.1.0"

_HOMES = {
    "unbroken.embed": ("Unbroken", "Followed"),
    "unbroken.runs.task": ("task", "TaskOptions"),
    "unbroken.runs.context": ("RunContext", "RunEnded"),
    "unbroken.client": (*("Client", "SyncClient", "Follow", "Producer", "Received", "Appended", "ConnectionStatus"),),
    "unbroken.messages": ("StreamInfo", "Message", "NewMessage", "Cursor", "StreamState"),
    "unbroken.identity": ("Principal", "Grant", "Verb"),
    "unbroken.limits": ("Limits",),
    "unbroken.errors": ("UnbrokenError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its home when it is first asked for."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
