"""What a server puts into the audit log by itself: deeds, limits, connections that were ended, and how it was started.

`build_services` connects it; whoever refuses somebody says so through `Services.refused`. It decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from unbroken import __version__
from unbroken.observe.audit_events import Configured, Disconnected, LimitHit

if TYPE_CHECKING:
    from unbroken.auth.live import LiveViewers
    from unbroken.observe.audit import Audit
    from unbroken.settings import Settings
    from unbroken.streams import Streams

__all__ = ["configured", "connect_audit"]

PLAIN: Final = (
    "host",
    "port",
    "durability",
    "allow_origin",
    "allow_host",
    "redact",
    "worker",
    "behind_proxy",
    "anonymous",
)
"""What says how a server is protected, and is shown."""
HIDDEN: Final = ("token", "token_file", "jwt_issuer", "encryption_key", "encryption_key_file", "tls_cert")
"""What is secret, or says where a secret is: told is only that it is set."""


def connect_audit(audit: Audit, streams: Streams, live: LiveViewers) -> None:
    """From now on what they do is written down: who cancels, changes or deletes, but not who reads, writes or starts."""
    streams.deeds.on_deed = audit.record
    streams.quotas.on_exceeded = lambda error, whose: audit.record(LimitHit(limit=str(error.detail["limit"]), by=whose))
    live.on_sent_away = lambda whose, why: audit.record(Disconnected(reason=why, by=whose))


def configured(settings: Settings) -> Configured:
    """How a server that is started with `settings` is protected."""
    told = []
    for name in (*PLAIN, *HIDDEN):
        value = getattr(settings, name)
        if value not in (None, (), False):
            told.append(f"{name}={value if name in PLAIN else 'set'}")
    return Configured(version=__version__, settings=tuple(told))
