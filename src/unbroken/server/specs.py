"""What a peer wrote about producers and ends, as what the store takes: the same checks on HTTP and on WebSocket.

The faces call it on decoded requests. It refuses with `InvalidError` and looks at nothing but its arguments.
"""

from __future__ import annotations

from typing import Final

import msgspec

from unbroken.errors import InvalidError, TransitionError
from unbroken.limits import Limits
from unbroken.messages import StreamInfo, StreamState, check_depth
from unbroken.protocol.frames import CloseSpec, CreateFrame, ProducerSpec
from unbroken.requests import NewStream
from unbroken.store.base import Close, Producer

__all__ = ["STATES", "check_written", "close_of", "new_stream", "object_text", "producer_of"]

STATES: Final = {state.value: state for state in StreamState}


def object_text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    """A JSON object of a request as text; None when it is absent or null."""
    return None if raw is msgspec.UNSET or bytes(raw) == b"null" else bytes(raw).decode()


def new_stream(frame: CreateFrame) -> NewStream:
    """What a `create` frame asks for."""
    return NewStream(
        kind=frame.kind,
        content_type=frame.content_type,
        session=frame.session,
        metadata=object_text(frame.metadata) or "{}",
        ttl_seconds=frame.ttl_seconds,
        lease=None if frame.lease is None else producer_of(frame.lease),
        lease_seconds=frame.lease_seconds,
    )


def close_of(spec: CloseSpec, limits: Limits) -> Close:
    """How to end a stream; `InvalidError` for a state that is no end and a reason that is too long or no object."""
    state = STATES.get(spec.state)
    if state is None or not state.terminal:
        ends = ", ".join(name for name, known in STATES.items() if known.terminal)
        raise InvalidError(f"state is one of {ends}", field="state")
    reason = object_text(spec.reason) or "{}"
    if len(reason.encode()) > limits.reason_bytes_max or not reason.startswith("{"):
        raise InvalidError(f"a reason is a JSON object of at most {limits.reason_bytes_max} bytes", field="reason")
    check_depth(reason.encode(), limits)
    return Close(state, reason)


def check_written(stream: StreamInfo) -> StreamInfo:
    """`stream`, if a client may write to it, lease, close or trim it; `TransitionError` for a run that has not ended.

    What its stream holds says where a run goes on after a crash and what it has done: only who executes it may say that.
    """
    if stream.run is not None and not stream.state.terminal:
        text = "the stream of a run is written by what executes it: cancel it, pause it, or answer its questions"
        raise TransitionError(text, state=stream.state.value)
    return stream


def producer_of(spec: ProducerSpec) -> Producer:
    """Who wants to produce; its bounds are checked where it is used, by `Streams` and `StreamStateManager`."""
    return Producer(spec.id, spec.epoch, spec.seq)
