"""A running server whose disk is about to fail, as its producers and viewers see it: HTTP, notices, and a history."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.support.speeds import Peer, Running
from unbroken.store.base import Producer
from unbroken.testing import History, Rule

__all__ = ["Service", "noticed"]

UNCLAIMED = frozenset({Rule.FRESH_READ, Rule.ONE_END, Rule.LIVE, Rule.CURSOR})
SECONDS_MAX = 60


@dataclass(slots=True)
class Service:
    """One stream `a` of a server, and its one producer, which sends each text until it is taken."""

    server: Running
    http: httpx2.AsyncClient
    history: History = field(default_factory=History)
    acknowledged: list[str] = field(default_factory=list)
    sent: int = 0

    async def begin(self) -> None:
        assert (await self.http.put(f"{self.server.url}/v1/streams/a", json={})).status_code == 201

    async def send(self, text: str) -> httpx2.Response:
        """Append `text` as the producer's next message; after a refusal it is the same append again."""
        number = len(self.acknowledged)
        if number == self.sent:
            self.sent += 1
            self.history.invoke("p", text, text)
        producer = Producer("p", 0, number)
        body = {
            "messages": [{"text": text}],
            "producer": {"id": producer.id, "epoch": producer.epoch, "seq": producer.seq},
        }
        answer = await self.http.post(f"{self.server.url}/v1/messages/a", json=body)
        if answer.status_code == 200:
            self.acknowledged.append(text)
            self.history.ack(text, len(self.acknowledged))
        elif answer.json()["code"] == "unknown_outcome":
            self.history.unknown(text)
        return answer

    async def texts(self) -> list[str]:
        """All of the stream, as a viewer reads it."""
        found: list[str] = []
        while True:
            params = {"after": str(len(found))}
            answer = await self.http.get(f"{self.server.url}/v1/messages/a", params=params)
            assert answer.status_code == 200, answer.text
            messages = answer.json()["messages"]
            if not messages:
                return found
            found += [message["text"] for message in messages]

    async def ready(self) -> tuple[int, list[str]]:
        answer = await self.http.get(f"{self.server.url}/readyz")
        return answer.status_code, [reason["code"] for reason in answer.json()["reasons"]]

    async def judge(self) -> None:
        """Everything that was acknowledged is there, in its place, once; nothing else is, but what nobody knows of."""
        rows = [(place, text, text) for place, text in enumerate(await self.texts(), 1)]
        self.history.final(rows)
        report = self.history.check(messages_min=0, without=UNCLAIMED)
        assert report.anomalies == [], str(report)
        assert report.acknowledged == len(self.acknowledged) > 0

    async def until_sent(self, text: str) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while (await self.send(text)).status_code != 200:
                await asyncio.sleep(0.05)


async def noticed(peer: Peer, code: str) -> dict[str, Any]:
    """The next notice, which says `code`."""
    notice: dict[str, Any] = await peer.receive("notice")
    assert notice["code"] == code, notice
    return notice
