"""The Python client: `Client` for asyncio, `SyncClient` for everything else."""

from unbroken.client.client import Client
from unbroken.client.follow import Follow
from unbroken.client.producer import Producer
from unbroken.client.sync import SyncClient
from unbroken.client.values import (
    Appended,
    ConnectionStatus,
    Erasure,
    Received,
    SessionPage,
    SessionView,
    StatusEvent,
    StreamPage,
    StreamRead,
    Verification,
)

__all__ = [
    "Appended",
    "Client",
    "ConnectionStatus",
    "Erasure",
    "Follow",
    "Producer",
    "Received",
    "SessionPage",
    "SessionView",
    "StatusEvent",
    "StreamPage",
    "StreamRead",
    "SyncClient",
    "Verification",
]
