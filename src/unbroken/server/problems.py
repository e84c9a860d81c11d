"""Errors as a client of the HTTP faces sees them: the problem document of PROTOCOL.md 1.4.

`middleware` answers with it, and the faces inside of a stream. It sends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from unbroken.errors import (
    DrainingError,
    ProtocolError,
    RequestTimeoutError,
    UnauthorizedError,
    UnbrokenError,
    VersionError,
)

__all__ = ["TOO_LARGE", "ErrorView", "error_view", "method_not_allowed", "problem_response"]

TOO_LARGE = 413
DRAINING_SECONDS = 1
"""When to come back to a server that is shutting down."""

_encoder = msgspec.json.Encoder()


class ErrorView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An error as clients see it inside of a stream."""

    code: str
    message: str
    retryable: bool
    cure: str
    detail: dict[str, str | int | bool | None]


def error_view(error: UnbrokenError) -> ErrorView:
    """What a client may know of `error`."""
    return ErrorView(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        cure=error.cure,
        detail=error.detail,
    )


def problem_response(
    error: UnbrokenError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """`error` as a problem document (RFC 9457), with the headers that its kind asks for."""
    status = status or error.http_status
    document = {
        "status": status,
        "title": (type(error).__doc__ or "").partition("\n")[0],
        "code": error.code,
        "detail": error.message,
        "cure": error.cure,
        "retryable": error.retryable,
        "facts": error.detail,
    }
    extra = {**_headers(error), **(headers or {})}
    return Response(_encoder.encode(document), status, extra, "application/problem+json")


def method_not_allowed(method: str, allowed: str) -> Response:
    """The answer to a method that a path does not know."""
    error = ProtocolError(f"{method[:20]} is not a method of this path", allow=allowed)
    return problem_response(error, status=405, headers={"Allow": allowed})


def _headers(error: UnbrokenError) -> dict[str, str]:
    headers: dict[str, str] = {}
    seconds = error.detail.get("retry_after_seconds")
    if seconds is None and isinstance(error, DrainingError):
        seconds = DRAINING_SECONDS
    if isinstance(seconds, int | float):
        headers["Retry-After"] = str(math.ceil(seconds))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, VersionError):
        headers["Upgrade"] = "websocket"
    if error.http_status in {TOO_LARGE, RequestTimeoutError.http_status}:
        headers["Connection"] = "close"  # what is left of the body is not read
    return headers
