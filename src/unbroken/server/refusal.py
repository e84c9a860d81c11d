"""How an error reaches a peer over WebSocket: as a frame, and as the code of a close.

Connections and their manager use it. It decides nothing but the translation.
"""

from __future__ import annotations

from typing import Final

from unbroken.errors import (
    DrainingError,
    OverloadedError,
    ProtocolError,
    TooLargeError,
    UnauthorizedError,
    UnbrokenError,
)
from unbroken.protocol.frames import ErrorFrame

__all__ = ["CLOSE_SERVICE_RESTART", "CLOSE_SILENT", "close_code", "error_frame"]

CLOSE_TOO_BIG: Final = 1009
CLOSE_INTERNAL: Final = 1011
CLOSE_SERVICE_RESTART: Final = 1012
CLOSE_TRY_LATER: Final = 1013
CLOSE_BAD_FRAME: Final = 4400
CLOSE_UNAUTHORIZED: Final = 4401
CLOSE_SILENT: Final = 4408


def error_frame(error: UnbrokenError, number: int | None = None, stream: str | None = None) -> ErrorFrame:
    """An error as a frame."""
    return ErrorFrame(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        id=number,
        stream=stream,
        detail=error.detail,
        cure=error.cure,
    )


def close_code(error: UnbrokenError) -> int:
    """The close code for an error that ends the connection."""
    if isinstance(error, TooLargeError):
        return CLOSE_TOO_BIG
    if isinstance(error, ProtocolError):
        return CLOSE_BAD_FRAME
    if isinstance(error, UnauthorizedError):
        return CLOSE_UNAUTHORIZED
    if isinstance(error, (OverloadedError, DrainingError)):
        return CLOSE_TRY_LATER
    return CLOSE_INTERNAL
