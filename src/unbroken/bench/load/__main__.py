"""The load client in Python: the same arguments, checks and report as the one in C, and slower.

`unbroken.bench.client` starts it where there is no C compiler. It is the limit itself in most measurements of throughput,
which the report says.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec

from unbroken.bench.client import Dialect, Load, Sample
from unbroken.bench.load.meter import Meter
from unbroken.bench.load.sockets import Peer, open_peer

__all__ = ["Arguments", "parse", "run"]

DRAIN_SECONDS_MAX = 20.0
WARM_CONNECTIONS = 20


class Arguments(msgspec.Struct, frozen=True):
    """The command line."""

    load: Load
    dialect: Dialect
    port: int
    pids: list[int]


def parse(words: list[str]) -> Arguments:
    """Arguments as `key=value`; an unknown key is an error."""
    pairs = [word.partition("=")[::2] for word in words]
    pids = [int(value) for key, value in pairs if key == "pid"]
    values = {key: value for key, value in pairs if key not in {"pid", "port"}}
    port = int(dict(pairs)["port"])
    load = {key: value for key, value in values.items() if key in Load.__dataclass_fields__}
    dialect = {key: value for key, value in values.items() if key in Dialect.__dataclass_fields__}
    if unknown := values.keys() - load.keys() - dialect.keys():
        raise SystemExit(f"unknown arguments {sorted(unknown)}")
    return Arguments(
        msgspec.convert(load, Load, strict=False), msgspec.convert(dialect, Dialect, strict=False), port, pids
    )


class Client:
    """One measurement."""

    def __init__(self, arguments: Arguments) -> None:
        self.load = arguments.load
        self.dialect = arguments.dialect
        self.port = arguments.port
        self.meter = Meter(arguments.pids)
        self.producers: list[Peer] = []
        self.viewers: list[Peer] = []
        self._arrived: dict[tuple[int, int], int] = {}
        self._done = [0] * self.load.streams
        self._sending = True

    # --- counting -----------------------------------------------------------------------------------------------------

    def viewed(self, peer: Peer, stream: int, number: int, sent_ns: int) -> None:
        """A viewer has a message."""
        meter = self.meter
        peer.got += 1
        meter.deliver(sent_ns)
        if not self.load.dense:
            return
        if (stream, number) != (peer.stream, peer.got):
            meter.fault(f"a message on stream {peer.stream}: {number} instead of {peer.got}")
        elif self.load.mode == "window":
            key = (stream, number)
            count = self._arrived.pop(key, 0) + 1
            if count < self.load.viewers:
                self._arrived[key] = count
            else:
                self._done[stream] += 1
                self.produce(self.producers[stream])

    def acknowledged(self, peer: Peer, count: int) -> None:
        """A producer has acks."""
        peer.got += count
        self.meter.acked += count
        if self.load.mode == "window" and not self.load.viewers:
            self._done[peer.stream] = peer.got
            self.produce(peer)

    def produce(self, peer: Peer) -> None:
        """Send what the window has room for."""
        load = self.load
        while (
            self._sending
            and peer.sent - self._done[peer.stream] < load.in_flight
            and not (load.count and self.meter.sent >= load.count)
        ):
            self.meter.sent += 1
            peer.send_message(time.monotonic_ns())

    # --- modes --------------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """All producers and viewers."""
        load = self.load
        for stream in range(load.streams):
            self.producers.append(await open_peer(self, stream, viewer=False))
        for number in range(load.streams * load.viewers):
            self.viewers.append(await open_peer(self, number // load.viewers, viewer=True))

    async def window(self) -> None:
        """As `run_window` of the C client."""
        await self.connect()
        load, meter = self.load, self.meter
        for producer in self.producers:
            self.produce(producer)
        if not load.count:
            await asyncio.sleep(load.warm_seconds)
        meter.begin()
        until = time.monotonic() + load.seconds
        while time.monotonic() < until and not self._all_done() and not meter.faults:
            await asyncio.sleep(0.01)
            meter.look()
        meter.end()
        self._sending = False
        await self.drain()

    def _all_done(self) -> bool:
        load, meter = self.load, self.meter
        if not load.count or meter.sent < load.count:
            return False
        return meter.delivered >= load.count * load.viewers if load.viewers else meter.acked >= load.count

    async def paced(self) -> None:
        """As `run_paced` of the C client."""
        await self.connect()
        load, meter = self.load, self.meter
        start = time.monotonic_ns() + 10_000_000
        warm = start + int(load.warm_seconds * 1e9)
        until = warm + int(load.seconds * 1e9)
        while (now := time.monotonic_ns()) < until:
            if not meter.begun and now >= warm:
                meter.begin()
            due = start + int(meter.sent * 1e9 / load.rate)
            if due <= now:
                self.producers[meter.sent % load.streams].send_message(due)
                meter.sent += 1
            else:
                await asyncio.sleep((due - now) / 1e9)
        meter.end()
        await self.drain()

    async def replay(self) -> None:
        """As `run_replay` of the C client."""
        load, meter = self.load, self.meter
        until = time.monotonic() + load.seconds
        meter.begin()
        self.viewers.append(await open_peer(self, 0, viewer=True))
        while meter.delivered < load.count and time.monotonic() < until:
            await asyncio.sleep(0.01)
            meter.look()
        meter.end()
        if meter.delivered != load.count:
            meter.fault(f"messages replayed: {meter.delivered} instead of {load.count}")

    async def idle(self) -> None:
        """As `run_idle` of the C client."""
        for step in range(6):
            while len(self.viewers) < WARM_CONNECTIONS + self.load.connections * step // 5:
                self.viewers.append(await open_peer(self, 0, viewer=True))
            await asyncio.sleep(self.load.settle_seconds)
            self.meter.steps.append(self.meter.look())

    async def drain(self) -> None:
        """Wait for what was sent, and check that every viewer got all of it."""
        load, meter = self.load, self.meter
        until = time.monotonic() + DRAIN_SECONDS_MAX
        wanted = meter.sent * load.viewers
        while time.monotonic() < until and (meter.delivered < wanted or meter.acked < meter.sent):
            if meter.faults:
                return
            await asyncio.sleep(0.01)
        for viewer in self.viewers if load.dense else ():
            if viewer.got != self.producers[viewer.stream].sent:
                meter.fault(f"delivered on stream {viewer.stream}: {viewer.got}")
        if meter.acked != meter.sent:
            meter.fault(f"acknowledged in all: {meter.acked} instead of {meter.sent}")

    async def raw(self) -> None:
        """As `serve_raw` of the C client."""
        block = (b"@@#0000:0000000001:0000000000000000:" + b"x" * self.load.message_bytes)[: self.load.message_bytes]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.read(65536):
                writer.write(b"HTTP/1.1 101 Raw\r\n\r\n")
                for _ in range(self.load.count):
                    writer.write(block)
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", self.port)
        await server.serve_forever()


def run(words: list[str]) -> Sample:
    """Carry out the measurement that the command line asks for."""
    client = Client(parse(words))
    asyncio.run(getattr(client, client.load.mode)())
    return client.meter.sample()


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(run(sys.argv[1:])))
