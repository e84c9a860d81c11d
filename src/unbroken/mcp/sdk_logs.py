"""Keeps secrets out of what the SDK itself logs: it shows messages that it cannot read, before we have seen them.

A record keeps its message, without secrets, and the type of its exception; a traceback shows parts of what was read, cut in
the middle of a secret perhaps, and goes.
"""

from __future__ import annotations

import logging
from typing import Final
from weakref import WeakSet

from unbroken.mcp.redaction import Redaction

__all__ = ["keep_quiet_about"]

LOGGERS: Final = (
    "mcp.client.client",
    "mcp.client.session",
    "mcp.client.streamable_http",
    "mcp.shared.dispatcher",
    "mcp.shared.jsonrpc_dispatcher",
)
_known: WeakSet[Redaction] = WeakSet()


def keep_quiet_about(redact: Redaction) -> None:
    """From now on the SDK's log shows nothing that `redact` hides."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_quiet)  # the same filter is added once
    _known.add(redact)


def _quiet(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        text = f"{text} ({record.exc_info[0].__name__})"
    for redact in tuple(_known):
        text = redact(text)
    record.msg, record.args, record.exc_info = text, (), None
    return True
