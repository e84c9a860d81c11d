"""Both load clients count, check and fail alike. Tiny counts, and no figure is judged."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from unbroken.bench.client import BenchError, Dialect, Load, LoadClient
from unbroken.bench.machine import Cores, Tools
from unbroken.bench.subjects import NATIVE, Bench, Running, Subject, ours, raw

EVERYWHERE = Cores(frozenset(), frozenset(), frozenset())
CLIENTS = ["python"]
if sys.platform == "linux" and shutil.which("cc"):
    CLIENTS.append("c")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> LoadClient:
    compiler = shutil.which("cc") if request.param == "c" else None
    return LoadClient(Tools(compiler, None, None, None, ()), EVERYWHERE, tmp_path)


@contextmanager
def running(subject: Subject, client: LoadClient, folder: Path) -> Iterator[Running]:
    tools = Tools(None, None, None, None, ())
    with subject.running(Bench(tools, EVERYWHERE, folder, tuple(client.command))) as found:
        yield found


def test_every_mode_against_ourselves(client: LoadClient, tmp_path: Path) -> None:
    with running(ours("process", name="ours"), client, tmp_path) as server:
        server.create(4)
        pids = server.pids
        load = Load(streams=3, viewers=2, in_flight=4, seconds=0.2, warm_seconds=0.05)
        window = client.run(load, server.dialect, server.port, pids)
        assert window.sent == window.acked > 0
        assert window.messages > 0
        assert window.p99_us >= window.p50_us > 0

        last = replace(NATIVE, send_frame=NATIVE.send_frame.replace("{s}", "3"), viewer_frame="")
        count = replace(load, streams=1, viewers=0, count=20, seconds=20.0)
        assert client.run(count, last, server.port, pids).acked == 20

        behind = replace(NATIVE, viewer_frame=NATIVE.viewer_frame.replace("{s}", "3"))
        replay = client.run(Load(mode="replay", count=20, seconds=20.0), behind, server.port, pids)
        assert replay.messages == 20

        idle = replace(NATIVE, viewer_frame="", viewer_ready='"hello"')
        steps = client.run(Load(mode="idle", connections=5, settle_seconds=0.05), idle, server.port, pids).rss_kb
        assert len(steps) == 6


def test_paced_messages_arrive(client: LoadClient, tmp_path: Path) -> None:
    with running(ours("memory", name="ours"), client, tmp_path) as server:
        server.create(2)
        load = Load(mode="paced", streams=2, rate=200, seconds=0.3, warm_seconds=0.0)
        sample = client.run(load, server.dialect, server.port, server.pids)
        assert sample.sent == sample.acked > 0


def test_a_doubled_message_is_a_failure(client: LoadClient, tmp_path: Path) -> None:
    double = replace(NATIVE, send_frame=NATIVE.send_frame.replace('{"text":"{t}"}', '{"text":"{t}"},{"text":"{t}"}'))
    with running(ours("memory", name="ours"), client, tmp_path) as server:
        server.create(1)
        load = Load(in_flight=2, seconds=0.1, warm_seconds=0.0)
        with pytest.raises(BenchError, match="1 instead of 2"):
            client.run(load, double, server.port, server.pids)


def test_a_refused_append_is_a_failure(client: LoadClient, tmp_path: Path) -> None:
    wrong = replace(NATIVE, send_frame=NATIVE.send_frame.replace('"text"', '"kind":"","text"'))
    with running(ours("memory", name="ours"), client, tmp_path) as server:
        server.create(1)
        with pytest.raises(BenchError, match="refused"):
            client.run(Load(seconds=0.1, warm_seconds=0.0), wrong, server.port, server.pids)


def test_the_floor_of_a_replay_serves_more_than_once(client: LoadClient, tmp_path: Path) -> None:
    load = Load(mode="replay", count=10, message_bytes=1000, seconds=10.0, dense=0)
    with running(raw(10, 1000, name="raw"), client, tmp_path) as server:
        for _ in range(2):
            sample = client.run(load, server.dialect, server.port, server.pids)
            assert sample.messages == 10


def test_a_client_that_fails_says_why(client: LoadClient) -> None:
    with ExitStack(), pytest.raises(BenchError, match="failed"):
        client.run(Load(seconds=0.1), Dialect(), 1, [])
