"""Every error that Unbroken raises or sends, as one tree with stable codes.

Each class fixes its `code`, whether a retry of the same request can succeed, its HTTP status and the way out; the faces
(HTTP, WebSocket, SSE, command line) only translate. Nothing here does I/O.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AddressError",
    "AlreadyExistsError",
    "ConfigurationError",
    "ConflictError",
    "CopyError",
    "CorruptError",
    "DrainingError",
    "EndedError",
    "ErasedError",
    "EpochMismatchError",
    "FencedError",
    "ForbiddenOriginError",
    "InUseError",
    "InvalidError",
    "LifespanError",
    "NotFoundError",
    "OverloadedError",
    "ProducerGapError",
    "ProviderUnavailableError",
    "ProtocolError",
    "QuotaError",
    "RequestTimeoutError",
    "SequenceError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "StoreUnsupportedError",
    "TooLargeError",
    "TransitionError",
    "TrimmedError",
    "UnauthorizedError",
    "UnknownRunnableError",
    "UnbrokenError",
    "UnknownOutcomeError",
    "UnreachableError",
    "VerificationError",
    "VersionError",
    "error_codes",
    "error_from_code",
]


class UnbrokenError(Exception):
    """The base of all errors of this package.

    `message` says what happened, `detail` holds JSON-compatible facts (for example `{"head": 41}`); both may be shown to
    the peer and never hold a secret.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    cure: ClassVar[str] = "This is a defect in Unbroken: please report it with the server's log."

    def __init__(self, message: str = "", **detail: str | int | bool | None) -> None:
        self.message = message or (type(self).__doc__ or "").split("\n", 1)[0]
        self.detail = detail
        super().__init__(self.message)


class InvalidError(UnbrokenError):
    """The request is malformed."""

    code = "invalid"
    http_status = 400
    cure = "Correct the named field and send the request again."


class TooLargeError(UnbrokenError):
    """The request is larger than a limit of this server."""

    code = "too_large"
    http_status = 413
    cure = "Split the payload, or raise the named limit in the server's settings."


class RequestTimeoutError(UnbrokenError):
    """The body of the request did not come in time; nothing was done."""

    code = "request_timeout"
    http_status = 408
    retryable = True
    cure = "Send the request again: whole, without long pauses, or in smaller parts."


class ProtocolError(UnbrokenError):
    """The peer broke the wire protocol."""

    code = "protocol"
    http_status = 400
    cure = "See PROTOCOL.md for the frames that are allowed here."


class VersionError(UnbrokenError):
    """Client and server have no protocol version in common."""

    code = "version"
    http_status = 426
    cure = "Upgrade the older of the two; the message names both sides' versions."


class UnauthorizedError(UnbrokenError):
    """Credentials are missing, malformed, expired or wrong."""

    code = "unauthorized"
    http_status = 401
    cure = "Send a valid token in the Authorization header, or a fresh ticket."


class ProviderUnavailableError(UnbrokenError):
    """Who is asking cannot be found out at the moment: the identity provider, or the application, does not answer."""

    code = "provider_unavailable"
    http_status = 503
    retryable = True
    cure = "Wait and try again. For the operator: see the server's log, and whether --jwt-keys can be reached from it."


class ForbiddenOriginError(UnbrokenError):
    """The Origin or Host of the request is not allowed."""

    code = "forbidden_origin"
    http_status = 403
    cure = "Add the origin or host to the server's allow-list (--allow-origin, --allow-host)."


class ForbiddenError(UnbrokenError):
    """The credential lets you see this, and does not let you do it; `detail.verb` is the right that is missing."""

    code = "forbidden"
    http_status = 403
    cure = "Ask its owner for a token that grants the verb (`unbroken token create`)."


class NotFoundError(UnbrokenError):
    """There is no such stream or session, or it is not yours."""

    code = "not_found"
    http_status = 404
    cure = "Check the name; `unbroken ls` lists what you can see."


class ErasedError(NotFoundError):
    """What the stream held was erased on purpose; `detail.by` and `detail.at` say by whom and when."""

    code = "erased"
    http_status = 410
    cure = "Drop what you hold of this stream; nobody can bring it back."


class AlreadyExistsError(UnbrokenError):
    """The name is taken by a stream or session with another configuration."""

    code = "already_exists"
    http_status = 409
    cure = "Use another name, or delete the existing one first."


class ConflictError(UnbrokenError):
    """The stream's head is not where the producer expected it; `detail.head` says where it is."""

    code = "conflict"
    http_status = 409
    cure = "Read from your last known message to `head`, then decide and append again."


class SequenceError(UnbrokenError):
    """The writer sequence does not grow."""

    code = "sequence"
    http_status = 409
    cure = "Use a writer sequence that sorts after the last accepted one."


class ProducerGapError(UnbrokenError):
    """A producer's sequence number skips one or more appends; `detail.expected` is the next one wanted."""

    code = "producer_gap"
    http_status = 409
    cure = "Send the missing appends first, beginning with `expected`."


class FencedError(UnbrokenError):
    """A newer incarnation of this producer has taken over; `detail.epoch` is its epoch."""

    code = "fenced"
    http_status = 403
    cure = "Stop this producer. To take over on purpose, use a producer epoch greater than `epoch`."


class EndedError(UnbrokenError):
    """The stream has ended and takes no more messages; `detail.state` and `detail.head` say how and where."""

    code = "ended"
    http_status = 409
    cure = "Create a new stream; an ended one stays as it is."


class TransitionError(UnbrokenError):
    """The stream or session cannot go from its present state to the wanted one."""

    code = "transition"
    http_status = 409
    cure = "Read the present state first; the table of transitions is in ARCHITECTURE.md."


class TrimmedError(UnbrokenError):
    """The messages asked for have been trimmed; `detail.first` is the oldest one retained."""

    code = "trimmed"
    http_status = 410
    cure = "Subscribe again after `first` - 1 and show that something is missing."


class EpochMismatchError(UnbrokenError):
    """The cursor belongs to an earlier stream of the same name; `detail.epoch` is the present one's epoch."""

    code = "epoch_mismatch"
    http_status = 410
    cure = "Drop what you hold of this stream and start again from its first message."


class OverloadedError(UnbrokenError):
    """A limit of this server is reached for the moment; `detail.retry_after_seconds` says when to come back."""

    code = "overloaded"
    http_status = 429
    retryable = True
    cure = "Wait as long as `retry_after_seconds` says, then send the same request again."


class QuotaError(OverloadedError):
    """An owner or a tenant takes more than it may; `detail.limit` names the limit."""

    code = "quota_exceeded"
    http_status = 429
    retryable = True
    cure = "Wait as long as `retry_after_seconds` says and use less, or have the named limit raised."


class DrainingError(UnbrokenError):
    """The server is shutting down."""

    code = "draining"
    http_status = 503
    retryable = True
    cure = "Connect again; another or the restarted server takes over."


class StoreError(UnbrokenError):
    """The store failed."""

    code = "store"
    http_status = 503
    retryable = True
    cure = "See the server's log and `unbroken doctor`."


class StoreUnavailableError(StoreError):
    """The store cannot be reached or did not answer in time; nothing was written."""

    code = "store_unavailable"
    retryable = True
    cure = "Retry with the same producer sequence; the append takes effect once."


class StoreFullError(StoreError):
    """The store has no room; nothing was written, reading goes on."""

    code = "store_full"
    http_status = 507
    retryable = True
    cure = "Free disk space or trim old streams; then the same append succeeds."


class StoreUnsupportedError(StoreError):
    """The database, or the engine that holds it, does not fit this version of Unbroken; nothing was changed."""

    code = "store_unsupported"
    http_status = 500
    retryable = False
    cure = "Run the version of Unbroken that the message asks for; it never changes a database that it does not know."


class UnreachableError(StoreUnavailableError):
    """The server does not answer."""

    code = "unreachable"
    cure = "Start it (`unbroken serve`), or name the right one with --server or UNBROKEN_SERVER."


class UnknownOutcomeError(StoreError):
    """The write may or may not have become durable."""

    code = "unknown_outcome"
    retryable = True
    cure = "Retry with the same producer id, epoch and sequence: it has no second effect."


class CorruptError(StoreError):
    """Stored data does not match its checksum; it is not served as good data."""

    code = "corrupt"
    http_status = 500
    retryable = False
    cure = (
        "Restore a backup, or bring back what is sound (`unbroken salvage`); `unbroken verify` names what is damaged."
    )


class InUseError(StoreError):
    """Another process has the database open."""

    code = "in_use"
    http_status = 409
    retryable = True
    cure = "Stop the server and the workers that use this file, then run the same command again."


class CopyError(StoreError):
    """A copy of a database could not be made; what it would have replaced is as it was."""

    code = "copy_failed"
    http_status = 500
    retryable = True
    cure = (
        "See to what the message names where the copy is made (room, rights, quotas, `ulimit -f`), then run the same "
        "command again."
    )


class VerificationError(UnbrokenError):
    """The hash chain of a stream does not hold; `detail.seq` is the first bad message."""

    code = "verification"
    http_status = 500
    cure = "Somebody changed the data below Unbroken: compare with a backup."


class UnknownRunnableError(UnbrokenError):
    """There is no such task, tool or program here."""

    code = "unknown_runnable"
    http_status = 404
    cure = "List what there is (`unbroken tools`); tasks, MCP servers and programs are named in the server's configuration."


class ConfigurationError(UnbrokenError):
    """A setting has no valid value."""

    code = "configuration"
    cure = "Correct the named setting; flags come before UNBROKEN_* variables."


class AddressError(UnbrokenError):
    """The server cannot listen on this address."""

    code = "address"
    http_status = 500
    cure = "Stop what listens there, or choose another address with --host and --port."


class LifespanError(UnbrokenError):
    """Unbroken's lifespan was never entered, so it has no store."""

    code = "lifespan"
    http_status = 500
    cure = "Use app.include_router(unbroken.router), or enter unbroken.lifespan(app) in your app's own lifespan."


def error_codes() -> dict[str, type[UnbrokenError]]:
    """Every concrete error class by its code, in a stable order."""
    found: dict[str, type[UnbrokenError]] = {UnbrokenError.code: UnbrokenError}
    waiting = list(UnbrokenError.__subclasses__())
    while waiting:
        cls = waiting.pop(0)
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found


def error_from_code(code: str, message: str, detail: dict[str, str | int | bool | None]) -> UnbrokenError:
    """The error that a peer named by `code`; an unknown code gives the base class, with the code in its detail."""
    cls = error_codes().get(code)
    if cls is None:
        return UnbrokenError(message, **{**detail, "peer_code": code})
    return cls(message, **detail)
