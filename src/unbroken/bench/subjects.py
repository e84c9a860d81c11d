"""The servers under test: ourselves in our settings, and the yardsticks, each as a fresh process on a free port.

Scenarios enter a subject, put a load onto it and leave it; leaving ends its processes and removes what they stored. A
subject ends only processes that it started.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from unbroken.bench.client import BenchError, Dialect
from unbroken.bench.machine import Cores, Tools, pinned
from unbroken.testing.ports import free_port

__all__ = ["NATIVE", "Bench", "Running", "Subject", "fastapi_redis", "inside_fastapi", "node", "ours", "raw"]

START_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 15.0
YARDSTICKS: Final = Path(__file__).parent / "yardsticks"
MOUNT: Final = "/streams"
NATIVE: Final = Dialect(
    producer_path="/v1/ws",
    viewer_path="/v1/ws",
    producer_ready='"hello"',
    viewer_ready='"subscribed"',
    subprotocol="unbroken.v1",
    send_frame='{"type":"append","id":{n},"stream":"bench/{s}","messages":[{"text":"{t}"}]}',
    viewer_frame='{"type":"subscribe","id":1,"stream":"bench/{s}","after":"start"}',
    ack='"id":',
    refusal='"type":"error"',
)
"""How to speak to ourselves: one message to each append frame."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every subject needs to start."""

    tools: Tools
    cores: Cores
    folder: Path
    client_command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections: where, as which processes, and how to speak to it."""

    port: int
    pids: list[int]
    dialect: Dialect
    create: Callable[[int], None] = field(default=lambda _count: None)
    """Creates streams 0 to n - 1, where they do not come into being by themselves."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under test; `start` gives it running in a folder of its own."""

    name: str
    start: Callable[[Bench, Path, ExitStack], Running]

    @contextmanager
    def running(self, bench: Bench) -> Iterator[Running]:
        """The subject, for the time of the block."""
        with tempfile.TemporaryDirectory(prefix="run-", dir=bench.folder) as folder, ExitStack() as stack:
            yield self.start(bench, Path(folder), stack)


def ours(
    store: str,
    *,
    name: str,
    dialect: Dialect = NATIVE,
    database: Path | None = None,
    checkout: Path | None = None,
    options: Sequence[str] = (),
) -> Subject:
    """`unbroken serve` on `memory:`, or on SQLite with the durability `process` or `disk`; on `database` if one is given.

    With `checkout` it is the server of the sources there, in this Python environment; `options` are more of the command's.
    """
    environment = {} if checkout is None else {"PYTHONPATH": str(checkout / "src")}

    def start(bench: Bench, folder: Path, stack: ExitStack) -> Running:
        port = free_port()
        url = "memory:" if store == "memory" else f"sqlite:///{database or folder / 'bench.db'}"
        durability = "disk" if store == "disk" else "process"
        command = [sys.executable, "-m", "unbroken", "serve", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--store", url, "--durability", durability, "--log-level", "warning", *options]
        server = _process(command, folder, port=port, cores=bench.cores.server, environment=environment)
        return Running(port, [stack.enter_context(server)], dialect, lambda count: _create_streams(port, count))

    return Subject(name, start)


def inside_fastapi(*, name: str, dialect: Dialect = NATIVE) -> Subject:
    """Ourselves mounted in a FastAPI application, at `/streams`, that uvicorn runs."""

    def start(bench: Bench, folder: Path, stack: ExitStack) -> Running:
        port = free_port()
        command = _uvicorn("unbroken.bench.yardsticks.inside_fastapi:app", port)
        environment = {"UNBROKEN_STORE": "memory:"}
        server = _process(command, folder, port=port, cores=bench.cores.server, environment=environment)
        pid = stack.enter_context(server)
        mounted = replace(dialect, producer_path=MOUNT + dialect.producer_path, viewer_path=MOUNT + dialect.viewer_path)
        return Running(port, [pid], mounted, lambda count: _create_streams(port, count, MOUNT))

    return Subject(name, start)


def fastapi_redis(*, name: str) -> Subject:
    """The application as it is written by hand; Redis appends to its file every second and may use every core."""

    def start(bench: Bench, folder: Path, stack: ExitStack) -> Running:
        assert bench.tools.redis is not None
        redis_port, port = free_port(), free_port()
        redis = [bench.tools.redis, "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
        redis += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        redis_pid = stack.enter_context(_process(redis, folder, port=redis_port, cores=bench.cores.all))
        command = _uvicorn("unbroken.bench.yardsticks.fastapi_redis:app", port)
        environment = {"UNBROKEN_BENCH_REDIS": f"redis://127.0.0.1:{redis_port}"}
        server = _process(command, folder, port=port, cores=bench.cores.server, environment=environment)
        return Running(port, [stack.enter_context(server), redis_pid], Dialect())

    return Subject(name, start)


def node(style: str, *, name: str, dialect: Dialect | None = None) -> Subject:
    """Node with `ws`, from memory; `style` is plain or corked."""

    def start(bench: Bench, folder: Path, stack: ExitStack) -> Running:
        assert bench.tools.node is not None
        port = free_port()
        command = [bench.tools.node, str(YARDSTICKS / "node_ws.js"), str(port), str(bench.tools.ws), style]
        pid = stack.enter_context(_process(command, folder, port=port, cores=bench.cores.server))
        return Running(port, [pid], dialect or Dialect())

    return Subject(name, start)


def raw(count: int, message_bytes: int, *, name: str) -> Subject:
    """A plain TCP server that writes the same block again and again: the floor of a replay."""

    def start(bench: Bench, folder: Path, stack: ExitStack) -> Running:
        port = free_port()
        words = [f"port={port}", "mode=raw", f"count={count}", f"message_bytes={message_bytes}"]
        command = [*bench.client_command, *words]
        pid = stack.enter_context(_process(command, folder, port=port, cores=bench.cores.server))
        return Running(port, [pid], replace(Dialect(), viewer_ready=""))

    return Subject(name, start)


def _uvicorn(app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--log-level", "warning", "--no-access-log", "--ws-per-message-deflate", "false"]


def _create_streams(port: int, count: int, mount: str = "") -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=START_SECONDS_MAX)
    try:
        for number in range(count):
            connection.request("PUT", f"{mount}/v1/streams/bench/{number}", body="{}")
            response = connection.getresponse()
            text = response.read()
            if response.status not in {200, 201}:
                raise BenchError(f"the server refused to create a stream: {text[:300]!r}")
    finally:
        connection.close()


@contextmanager
def _process(
    command: Sequence[str],
    folder: Path,
    *,
    port: int,
    cores: frozenset[int],
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """A server's process that accepts connections on `port`; ended when the block is left."""
    with (folder / f"output-{port}.txt").open("wb") as output, pinned(cores):
        process = subprocess.Popen(  # noqa: S603 - programs that this module names
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | dict(environment or {}),
        )
    try:
        _wait_for(process, port, Path(output.name))
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchError(f"it did not start:\n{output.read_text(errors='replace')[-2_000:]}")
