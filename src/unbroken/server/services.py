"""What the faces of one server share, as one value.

The composition root builds a `Services`, every face gets it; faces never reach each other except through it. It starts and
stops nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from unbroken.observe.audit_events import Refused, TokenRevoked

if TYPE_CHECKING:
    from unbroken.auth.access import Access
    from unbroken.auth.callers import Callers
    from unbroken.auth.live import LiveViewers
    from unbroken.auth.stored import StoredTokens
    from unbroken.auth.tickets import Tickets
    from unbroken.checkpoints.keeper import CheckpointKeeper
    from unbroken.clock import Clock
    from unbroken.erasure import Eraser
    from unbroken.errors import UnbrokenError
    from unbroken.hub import Hub
    from unbroken.identity import Principal
    from unbroken.limits import Limits
    from unbroken.log import Log
    from unbroken.observe.audit import Audit
    from unbroken.observe.metrics import Metrics
    from unbroken.quotas import Quotas
    from unbroken.redaction.redactor import Redactor
    from unbroken.runs.desk import RunDesk
    from unbroken.runs.supervisor import RunSupervisor
    from unbroken.server.bodies import Bodies
    from unbroken.server.manager import WebSocketConnectionManager
    from unbroken.states import StreamStateManager
    from unbroken.store.base import StreamingMessageRepository
    from unbroken.streams import Streams

__all__ = ["Services"]

KEPT_OUT: Final = frozenset({"unauthorized", "forbidden", "forbidden_origin"})


@dataclass(slots=True)
class Services:
    """The parts of a running server. `started` is False before the lifespan was entered and after it was left."""

    store: StreamingMessageRepository
    log: Log
    streams: Streams
    states: StreamStateManager
    hub: Hub
    metrics: Metrics
    audit: Audit
    eraser: Eraser
    limits: Limits
    clock: Clock
    access: Access
    tickets: Tickets
    tokens: StoredTokens
    callers: Callers
    live: LiveViewers
    connections: WebSocketConnectionManager
    bodies: Bodies
    desk: RunDesk
    supervisor: RunSupervisor | None
    keeper: CheckpointKeeper | None = None
    started: bool = field(default=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when draining begins: whoever holds a long response waits for it too, and ends then."""

    def use_redactor(self, redactor: Redactor) -> None:
        """From now on everything that is stored goes through it; what it takes out is counted."""
        redactor.found = lambda rule, count: self.metrics.redactions.labels(rule).inc(count)
        self.streams.redactor = redactor

    async def end_credential(self, principal: Principal) -> None:
        """Revoke what `principal` came with, durably; whoever is connected with it is sent away."""
        await self.tokens.revoke(principal)
        self.tickets.forget(principal.credential)
        self.live.expel(principal.credential)
        self.audit.record(
            TokenRevoked(
                credential=principal.credential, tenant=principal.tenant, owner=principal.subject, by=principal
            )
        )

    def refused(self, error: UnbrokenError, face: str, *, client: str = "", by: Principal | None = None) -> None:
        """Count an error that a peer was told; one that kept somebody out goes into the audit log, by its code alone."""
        self.metrics.refused(error)
        if error.code in KEPT_OUT:
            self.audit.record(Refused(reason=error.code, face=face, client=client, by=by))

    @property
    def quotas(self) -> Quotas:
        """What owners and tenants take of this server."""
        return self.streams.quotas

    @property
    def draining(self) -> bool:
        """Whether this server sends its viewers away and takes no new work."""
        return self.stopping.is_set()

    @draining.setter
    def draining(self, value: bool) -> None:
        if value:
            self.stopping.set()
        else:
            self.stopping.clear()
