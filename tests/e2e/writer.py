"""Owns a producer over plain HTTP, as any program might be one: numbered words, each sent until it is acknowledged.

Used by the end-to-end tests. It never uses our client: what the page shows is compared with what this was acked.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import anyio
import httpx2

__all__ = ["Writer"]

RETRY_SECONDS = 0.05
GIVE_UP_SECONDS = 60.0


class Writer:
    """Appends `w0 w1 …` to one stream; `acked` counts what the server has acknowledged."""

    def __init__(self, url: str, stream: str, *, token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx2.AsyncClient(base_url=f"{url}/v1/", headers=headers, timeout=10)
        self.stream = stream
        self.acked = 0
        self.retries = 0
        self._seq = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def create(self, **body: object) -> None:
        (await self._http.put(f"streams/{self.stream}", json=body)).raise_for_status()

    async def words(self, count: int) -> None:
        """The next `count` words, one append each, ten to a line."""
        for number in range(self.acked, self.acked + count):
            end = "\n" if number % 10 == 9 else ""
            await self.append([{"kind": "stdout", "text": f"w{number} {end}"}])
            self.acked += 1

    async def append(self, messages: Sequence[dict[str, object]]) -> None:
        """One append, sent again with the same numbers while the server is away."""
        producer = {"id": "writer", "epoch": 0, "seq": self._seq}
        with anyio.fail_after(GIVE_UP_SECONDS):
            while True:
                try:
                    answer = await self._http.post(
                        f"messages/{self.stream}", json={"messages": list(messages), "producer": producer}
                    )
                except httpx2.TransportError:
                    self.retries += 1
                    await anyio.sleep(RETRY_SECONDS)
                    continue
                if answer.status_code >= 500:
                    self.retries += 1
                    await anyio.sleep(RETRY_SECONDS)
                    continue
                answer.raise_for_status()
                self._seq += 1
                return

    async def close(self, state: str = "completed", **reason: object) -> None:
        (await self._http.post(f"close/{self.stream}", json={"state": state, "reason": reason})).raise_for_status()

    async def state(self) -> str:
        view = (await self._http.get(f"streams/{self.stream}")).raise_for_status().json()
        state: str = view["state"]
        return state
