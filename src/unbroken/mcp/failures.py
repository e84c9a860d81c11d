"""What can go wrong with a call, as one value: its class, what is known of it, and whether the tool may have run.

The guards make them, `sdk` turns the SDK's exceptions into them, and a call ends its run with one. Pure values.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from unbroken.mcp.redaction import Redaction

__all__ = ["FACTS_KEY", "Facts", "Failure", "FailureClass"]

FACTS_KEY: Final = f"unbroken-{secrets.token_hex(8)}"
"""Where the guard leaves its facts in the `data` of a JSON-RPC error. A server cannot know it, so it cannot forge them."""


class FailureClass(StrEnum):
    """Kinds of failures that viewers are told."""

    AUTH = "auth"
    RATE_LIMITED = "rate_limited"
    PROTOCOL_MISMATCH = "protocol_mismatch"
    TRANSPORT = "transport"
    TOO_LARGE = "too_large"
    BAD_RESPONSE = "bad_response"
    SERVER_ERROR = "server_error"
    SPAWN = "spawn"


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the guard saw of one HTTP exchange. `unsent`: certainly no byte of the request has reached the server."""

    kind: FailureClass
    http_status: int | None = None
    retry_after: float | None = None
    www_authenticate: dict[str, str] = {}
    exception: str = ""
    unsent: bool = False


@dataclass(eq=False, kw_only=True)
class Failure(Exception):  # noqa: N818 - how a call fails is a value too
    """A failed exchange. `executed`: whether the tool may have run because of it, as far as the failure itself tells."""

    kind: FailureClass
    message: str
    executed: bool = True
    code: int | None = None
    http_status: int | None = None
    retry_after: float | None = None
    www_authenticate: Mapping[str, str] = field(default_factory=dict)
    exception: str = ""
    stderr: str = ""
    versions: Mapping[str, list[str]] = field(default_factory=dict)
    answered: bool = False
    """Whether the server answered: then a repetition gets the same answer, and its end is known."""

    def __str__(self) -> str:
        return self.message

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        if self.kind in {FailureClass.TRANSPORT, FailureClass.SPAWN, FailureClass.RATE_LIMITED}:
            return True
        return self.kind is FailureClass.SERVER_ERROR and (self.http_status or 0) >= 500

    def body(self, redact: Redaction, *, text_bytes_max: int, stderr_bytes_max: int) -> dict[str, object]:
        """As viewers are told it: without secrets, and cut."""
        facts: dict[str, object] = {"class": self.kind.value, "error": redact(self.message)[:text_bytes_max]}
        for name in ("code", "http_status", "retry_after"):
            if getattr(self, name) is not None:
                facts[name] = getattr(self, name)
        if self.exception:
            facts["exception"] = self.exception
        if self.www_authenticate:
            facts["www_authenticate"] = {
                name: redact(value)[:text_bytes_max] for name, value in self.www_authenticate.items()
            }
        if self.versions:
            facts["versions"] = dict(self.versions)
        if self.stderr:
            facts["stderr"] = redact(self.stderr)[-stderr_bytes_max:]
        return facts
