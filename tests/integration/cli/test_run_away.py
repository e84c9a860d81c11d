"""`unbroken run` and a server that is away, late, killed or slow: the command notices nothing, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.commands import Commands, eventually, finish
from tests.support.kept import kept, until
from tests.support.server import ServerProcess
from unbroken.messages import payload_bytes

pytestmark = pytest.mark.anyio

COUNTING = "import sys, time\nfor n in range({count}):\n    print('line', n, flush=True)\n    time.sleep({pause})\n"
WAITING = "import sys\nfor n in range({count}): print('line', n)\nsys.stdout.flush()\nsys.stdin.read()\nprint('end')\n"
BURST = "for n in range({count}): print('line', n)"


@pytest.fixture
async def away(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server that is not running yet; whatever a test starts is ended."""
    server = ServerProcess(tmp_path)
    try:
        yield server
    finally:
        if server.running:
            server.thaw()
            await server.kill()


@pytest.fixture
async def lonely(away: ServerProcess, tmp_path: Path) -> AsyncIterator[Commands]:
    """Commands that talk to the server that is away."""
    commands = Commands(tmp_path / "home", away.url)
    yield commands
    await commands.end()


def counting(count: int, pause: float = 0) -> list[str]:
    return ["--", sys.executable, "-c", COUNTING.format(count=count, pause=pause)]


def waiting(count: int) -> list[str]:
    """A program that prints, then waits for the end of its input."""
    return ["--", sys.executable, "-c", WAITING.format(count=count)]


def lines(count: int) -> bytes:
    return b"".join(b"line %d\n" % n for n in range(count))


async def check(
    server: ServerProcess, name: str, expected: bytes, state: str = "completed", *, token: str | None = None
) -> None:
    """The stream holds exactly `expected`, in dense order and with a chain that holds, and ended as said."""
    found = await kept(server.url, name, token=token)
    assert [one.seq for one in found.messages] == list(range(1, len(found.messages) + 1))
    assert "".join(one.text or "" for one in found.messages).encode() == expected
    assert found.view.state == state


async def until_line_99(server: ServerProcess) -> None:
    """Wait until the server has everything that a waiting program of 100 lines prints."""
    await until(server.url, "job", lambda view: view.head > 0)
    async with asyncio.timeout(30):
        while b"line 99" not in (await kept(server.url, "job")).payload():
            await asyncio.sleep(0.02)


async def test_without_a_server_the_command_runs_and_its_output_is_delivered_later(
    away: ServerProcess, lonely: Commands
) -> None:
    done = await lonely("run", "--name", "job", "--wait", "0.5", *counting(1000), "--flag-of-the-command")
    assert done.status == 0
    assert done.out == lines(1000)
    assert "cure: `unbroken deliver`" in done.err
    assert len(lonely.spilled()) == 1
    assert (await lonely("deliver", "--wait", "0.5")).status == 75, "still away"
    assert len(lonely.spilled()) == 1
    await away.start()
    delivered = await lonely("deliver", "--json")
    assert delivered.status == 0
    assert delivered.objects[0]["stream"] == "job"
    assert list(lonely.spill.iterdir()) == [], "neither the file nor its lock is left"
    await check(away, "job", lines(1000))
    assert (await lonely("deliver")).text == "nothing is left to deliver\n"


async def test_a_command_that_fails_keeps_its_exit_code_without_a_server(lonely: Commands) -> None:
    done = await lonely("run", "--wait", "0.1", "--", "sh", "-c", "echo x >&2; exit 9")
    assert done.status == 9


async def test_a_server_that_comes_during_the_run_gets_everything(away: ServerProcess, lonely: Commands) -> None:
    process = await lonely.start("run", "--name", "job", "--quiet", *waiting(500), stdin=asyncio.subprocess.PIPE)
    await eventually(lonely.spilled, "output is saved while the server is away")
    await away.start()
    done = await finish(process, stdin=b"go")
    assert done.status == 0
    await check(away, "job", lines(500) + b"end\n")
    assert list(lonely.spill.iterdir()) == []


async def test_a_server_killed_again_and_again_in_mid_run_loses_and_doubles_nothing(
    away: ServerProcess, lonely: Commands
) -> None:
    await away.start()
    process = await lonely.start("run", "--name", "job", "--quiet", "--wait", "40", *counting(400, 0.01))
    assert process.stdout is not None
    received = b""
    for wanted in (50, 150, 250, 350):
        while received.count(b"\n") < wanted:
            received += await process.stdout.readline()
        await away.restart(kill=True)
    done = await finish(process)
    assert done.status == 0
    assert received + done.out == lines(400)
    assert away.starts == 5
    await check(away, "job", lines(400))


async def test_a_frozen_server_does_not_hold_up_the_command_and_memory_stays_bounded(
    away: ServerProcess, lonely: Commands
) -> None:
    await away.start()
    away.freeze()
    size, cap = 60_000_000, 2
    script = (
        "import sys\n"
        "block = b'0123456789abcde\\n' * 4096\n"
        f"for _ in range({size} // len(block)): sys.stdout.buffer.write(block)\n"
    )
    command = ["--", sys.executable, "-c", script]
    process = await lonely.start("run", "--name", "job", "--wait", "1", "--spill-max", str(cap), *command)
    peak = 0
    assert process.stdout is not None
    received = 0
    while piece := await process.stdout.read(1 << 20):
        received += len(piece)
        peak = max(peak, peak_bytes(process.pid) or peak)
    done = await finish(process)
    assert done.status == 0
    written = size // 65_536 * 65_536
    assert received == written
    assert "were not kept" in done.err
    assert peak < 150_000_000
    (spill,) = lonely.spilled()
    assert spill.stat().st_size <= cap * 1024 * 1024
    away.thaw()
    assert (await lonely("deliver")).status == 0
    found = await kept(away.url, "job")
    gaps = [json.loads(payload_bytes(one.message))["dropped_bytes"] for one in found.messages if one.kind == "gap"]
    delivered = len(found.payload("stdout"))
    assert gaps
    assert delivered + sum(gaps) == written
    assert delivered > 500_000
    assert found.view.state == "completed"


def peak_bytes(pid: int) -> int | None:
    """The most memory that a process has had."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


async def test_what_a_killed_runner_had_saved_is_delivered_and_its_stream_ends(
    away: ServerProcess, lonely: Commands
) -> None:
    process = await lonely.start("run", "--name", "job", "--quiet", *waiting(300), stdin=asyncio.subprocess.PIPE)
    await eventually(lonely.spilled, "output is saved while the server is away")
    process.kill()
    await finish(process)
    await away.start()
    assert (await lonely("deliver")).status == 0
    await check(away, "job", lines(300), "interrupted")


async def test_a_stream_that_ended_meanwhile_is_continued_in_another(away: ServerProcess, lonely: Commands) -> None:
    """The run is stopped for longer than its lease: its stream is interrupted, and the rest goes to a continuation."""
    await away.start()
    process = await lonely.start("run", "--name", "job", *waiting(100), stdin=asyncio.subprocess.PIPE)
    await until_line_99(away)
    process.send_signal(signal.SIGSTOP)
    await until(away.url, "job", lambda view: view.state == "interrupted")
    process.send_signal(signal.SIGCONT)
    done = await finish(process, stdin=b"go")
    assert done.status == 0
    assert "the rest of this output goes to job.2" in done.err
    await check(away, "job", lines(100), "interrupted")
    await check(away, "job.2", b"end\n")
    assert (await kept(away.url, "job.2")).metadata["continues"] == "job"


async def test_a_delivery_after_the_lease_ran_out_continues_where_the_stream_ended(
    away: ServerProcess, lonely: Commands
) -> None:
    await away.start()
    process = await lonely.start("run", "--name", "job", "--wait", "0.2", *waiting(100), stdin=asyncio.subprocess.PIPE)
    await until_line_99(away)
    away.freeze()
    done = await finish(process, stdin=b"go")
    assert done.status == 0
    assert len(lonely.spilled()) == 1
    away.thaw()
    await until(away.url, "job", lambda view: view.state in {"interrupted", "completed"})
    assert (await lonely("deliver")).status == 0
    names = [view["stream"] for view in (await lonely("ls", "--json")).objects]
    assert set(names) <= {"job", "job.2"}
    everything = b"".join([(await kept(away.url, name)).payload() for name in sorted(names)])
    assert everything == lines(100) + b"end\n", "whatever the frozen server had in its socket counts once"
    assert (await kept(away.url, max(names))).view.state == "completed"


async def test_the_next_run_delivers_what_an_earlier_one_left(away: ServerProcess, lonely: Commands) -> None:
    assert (await lonely("run", "--name", "one", "--wait", "0.2", *counting(50))).status == 0
    await away.start()
    process = await lonely.start("run", "--name", "two", "--quiet", *waiting(1), stdin=asyncio.subprocess.PIPE)
    await eventually(lambda: len(lonely.spilled()) == 0, "the earlier run's file is delivered")
    await finish(process, stdin=b"go")
    await check(away, "one", lines(50))
    await check(away, "two", lines(1) + b"end\n")


async def test_two_deliveries_at_once_double_nothing(away: ServerProcess, lonely: Commands) -> None:
    for name in ("one", "two", "three"):
        assert (await lonely("run", "--name", name, "--wait", "0.1", *counting(200))).status == 0
    await away.start()
    first, second = await asyncio.gather(lonely("deliver"), lonely("deliver"))
    assert (first.status, second.status) == (0, 0)
    for name in ("one", "two", "three"):
        await check(away, name, lines(200))


async def test_a_delivery_killed_in_the_middle_is_taken_up_again(away: ServerProcess, lonely: Commands) -> None:
    count = 1_200_000  # a kill in the middle of less comes too late
    burst = ["--", sys.executable, "-c", BURST.format(count=count)]
    assert (await lonely("run", "--name", "job", "--wait", "0.1", *burst)).status == 0
    await away.start()
    process = await lonely.start("deliver")
    await until(away.url, "job", lambda view: view.head > 0)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await finish(process)
    assert (await until(away.url, "job", lambda view: view.head > 0)).state != "completed", "killed in the middle"
    assert len(lonely.spilled()) == 1
    assert (await lonely("deliver")).status == 0
    await check(away, "job", lines(count))


async def test_a_wrong_token_fails_nothing_and_keeps_the_output(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": "right"}) as server:
        wrong = Commands(tmp_path / "home", server.url, UNBROKEN_TOKEN="not-this-one")
        done = await wrong("run", "--name", "job", *counting(20))
        assert (done.status, done.out) == (0, lines(20))
        assert "error[unauthorized]" in done.err
        assert "not-this-one" not in done.err
        assert all(b"not-this-one" not in path.read_bytes() for path in wrong.spilled())
        right = Commands(tmp_path / "home", server.url, UNBROKEN_TOKEN="right")
        assert (await right("deliver")).status == 0
        await check(server, "job", lines(20), token="right")


async def test_nowhere_to_keep_output_fails_nothing(away: ServerProcess, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()
    commands = Commands(blocked, away.url)
    done = await commands("run", "--wait", "0.1", *counting(20))
    assert (done.status, done.out) == (0, lines(20))
    assert "output is lost" in done.err


async def test_a_damaged_spill_file_is_told_and_left(lonely: Commands) -> None:
    lonely.spill.mkdir(parents=True)
    (lonely.spill / "run-x.spill").write_bytes(b"nonsense")
    done = await lonely("deliver")
    assert done.status == 4
    assert "error[corrupt]" in done.err
    assert len(lonely.spilled()) == 1
