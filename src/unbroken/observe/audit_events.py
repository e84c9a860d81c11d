"""What is worth an entry in the audit log: one type for each thing that somebody did, or was not let do.

Whoever decides such a thing makes one of these and hands it to `unbroken.observe.audit.Audit`. An event names people,
streams and credentials; it never holds a payload, a secret or a hash of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unbroken.identity import Principal

__all__ = [
    "AuditEvent",
    "Configured",
    "Deed",
    "Disconnected",
    "Erased",
    "LimitHit",
    "Refused",
    "TokenMade",
    "TokenRevoked",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One entry. Strangers can cause those that are `counted` at will: their repetitions become one entry with a number."""

    event: ClassVar[str] = ""
    counted: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(AuditEvent):
    """Somebody was not let in, or not let do something.

    `reason` is a word of the code's own, such as `expired`, `bad_signature`, `origin`; never what was sent. `face` is where
    (`http`, `websocket`, `sse`), `client` the address, `by` who it was where that is known.
    """

    event = "refused"
    counted = True
    reason: str
    face: str = ""
    client: str = ""
    by: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHit(AuditEvent):
    """A principal or an address has reached the limit of that name."""

    event = "limit"
    counted = True
    limit: str
    client: str = ""
    by: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMade(AuditEvent):
    """A token was made by `by`, None for the operator; `credential` is its id and `label` its label, never its secret.

    `tenant` and `owner` are whose things it reaches, `grants` what it may do, as text; empty for everything. A share link is
    a token too.
    """

    event = "token_made"
    credential: str
    label: str = ""
    tenant: str
    owner: str
    grants: tuple[str, ...] = ()
    expires_ms: int | None = None
    by: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRevoked(AuditEvent):
    """A token, or with `reason` what else that stands for, such as all of a subject's, is no longer taken."""

    event = "token_revoked"
    credential: str
    tenant: str = ""
    owner: str = ""
    reason: str = ""
    by: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed(AuditEvent):
    """Somebody with the right `verb` (`cancel` or `manage`) did `action` to a stream or a session of `owner`, or tried to.

    `outcome` is `done`, `unchanged` where there was nothing to do, or the code of the error, of which `unknown_outcome` means
    that it may have happened.
    """

    event = "deed"
    verb: str
    action: str = ""
    outcome: str = ""
    owner: str = ""
    stream: str = ""
    session: str = ""
    epoch: int | None = None
    by: Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased(AuditEvent):
    """The contents of `streams` streams and `sessions` sessions of a person were destroyed, or of the one stream named."""

    event = "erased"
    tenant: str
    owner: str
    stream: str = ""
    streams: int
    sessions: int = 0
    reason: str = ""
    by: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(AuditEvent):
    """A live connection of `by` was closed because its credential is no longer good; `reason` as in `Refused`."""

    event = "disconnected"
    reason: str
    face: str = ""
    client: str = ""
    by: Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured(AuditEvent):
    """A server started; `settings` says how it is protected, as `name=value`, never with a secret."""

    event = "configured"
    version: str
    settings: tuple[str, ...] = ()
