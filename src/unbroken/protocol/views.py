"""How stored values look to clients: the same on every face.

Pure translations from `StreamInfo` and `SessionInfo` to the objects of PROTOCOL.md. Nothing that is only for the server
(ids, tenants, owners) passes here.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from unbroken.identity import Principal, Verb
from unbroken.messages import SessionInfo, StreamInfo
from unbroken.protocol.frames import StreamView

__all__ = ["GrantView", "SessionView", "TokenView", "answer_view", "session_view", "stream_view"]


class SessionView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session as clients see it."""

    session: str
    state: str
    metadata: msgspec.Raw
    created: int
    updated: int


class GrantView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some rights on the stream `name`, or with `prefix` on every name that begins so; at `epoch` only, if given."""

    name: str
    verbs: list[str]
    prefix: bool = False
    epoch: int | None = None


class TokenView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A token as its owner sees it: never its secret. `grants` None: everything."""

    id: str
    kind: str
    label: str
    grants: list[GrantView] | None
    created: int
    expires: int | None


def stream_view(info: StreamInfo) -> StreamView:
    """What a client that may read a stream may know of it (PROTOCOL.md 1.3)."""
    return msgspec.structs.replace(
        _outline(info),
        session=info.session,
        metadata=msgspec.Raw(info.metadata.encode()),
        reason=msgspec.Raw(info.reason.encode()),
        hash=info.hash.hex(),
        producer=info.lease_producer,
        cancel_requested=info.cancel_requested_ms is not None,
        cancel_requested_by=info.cancel_requested_by,
        run=UNSET if info.run is None else msgspec.Raw(info.run.encode()),
        erased=UNSET if info.erased is None else msgspec.Raw(info.erased.encode()),
    )


def answer_view(info: StreamInfo, principal: Principal) -> StreamView:
    """What the one who has changed a stream is told of it: its outline alone, where it may not be read."""
    return stream_view(info) if principal.may(Verb.READ, info.name, info.epoch) else _outline(info)


def _outline(info: StreamInfo) -> StreamView:
    """Its place, its life cycle and how much it holds, and nothing that anybody has written into it."""
    return StreamView(
        stream=info.name,
        epoch=info.epoch,
        state=info.state.value,
        first=info.first,
        head=info.head,
        cursor=str(info.cursor),
        kind=info.kind,
        content_type=info.content_type,
        bytes=info.size_bytes,
        created=info.created_ms,
        updated=info.updated_ms,
        ended=info.ended_ms,
        expires=info.expires_ms,
        ttl_seconds=info.ttl_seconds,
    )


def session_view(info: SessionInfo) -> SessionView:
    """What a client may know of a session (PROTOCOL.md 2)."""
    return SessionView(
        session=info.name,
        state=info.state.value,
        metadata=msgspec.Raw(info.metadata.encode()),
        created=info.created_ms,
        updated=info.updated_ms,
    )
