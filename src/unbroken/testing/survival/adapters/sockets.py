"""What adapters that speak WebSocket share: one connection, with or without TLS.

They decide what is sent and what an answer means; nothing here knows a protocol.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from unbroken.testing.survival.adapter import Adapter

__all__ = ["open_socket"]

BYTES_MAX = 1 << 20
SCHEMES = {"http": "ws", "https": "wss"}
PORTS = {"ws": 80, "wss": 443}
CLOSE_SECONDS = 1


async def open_socket(
    adapter: Adapter, path: str = "", *, subprotocol: str | None = None, bytes_max: int = BYTES_MAX
) -> ClientConnection:
    """Connect to `path` below the adapter's address; with TLS the server is asked for, and proven, by its own name."""
    parts, known = urlsplit(f"{adapter.url}{path}"), adapter.secure
    scheme = SCHEMES.get(parts.scheme, parts.scheme)
    netloc = parts.netloc if known is None else known.authority
    headers = {} if adapter.token is None else {"Authorization": f"Bearer {adapter.token}"}
    return await connect(
        urlunsplit(parts._replace(scheme=scheme, netloc=netloc)),
        ssl=None if known is None else known.ssl,
        host=parts.hostname,
        port=parts.port or PORTS[scheme],
        proxy=None,
        subprotocols=None if subprotocol is None else [Subprotocol(subprotocol)],
        additional_headers=headers,
        compression=None,
        ping_interval=None,
        close_timeout=CLOSE_SECONDS,
        max_size=bytes_max,
    )
