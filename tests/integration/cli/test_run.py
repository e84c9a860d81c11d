"""`unbroken run`: output passes through unchanged and is kept, and the command ends as it would have without us."""

from __future__ import annotations

import asyncio
import os
import pty
import random
import secrets
import select
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.support.commands import Commands, eventually, finish
from tests.support.emptied import emptied
from tests.support.kept import kept, until
from tests.support.server import ServerProcess, free_port
from unbroken.runs.environment import SECRETS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(shared: ServerProcess) -> ServerProcess:
    """The file's one server, as good as new."""
    return await emptied(shared)


TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes its standard input the terminal of its session, then becomes what its arguments say."""


async def stream_of(commands: Commands, name: str) -> tuple[list[dict[str, object]], dict[str, object]]:
    """The stream's messages and its state."""
    found = await kept(commands.server, name)
    messages = [{"seq": one.seq, **msgspec.to_builtins(one.message)} for one in found.messages]
    return messages, {"state": found.view.state, "reason": found.reason}


async def tailed(commands: Commands, name: str, kind: str) -> bytes:
    """The payloads of one kind, joined, as the command shows them."""
    return (await commands("tail", name, "--raw", "--kind", kind)).out


def python(script: str) -> list[str]:
    return ["--", sys.executable, "-c", script]


async def test_output_passes_through_byte_by_byte_and_is_kept_apart(commands: Commands, tmp_path: Path) -> None:
    binary, text = random.Random(7).randbytes(300_000), "Grüße, 世界 😀\n" * 5_000
    (tmp_path / "out").write_bytes(binary)
    (tmp_path / "err").write_text(text)
    script = f"cat {tmp_path}/out; cat {tmp_path}/err >&2; exit 3"
    done = await commands("run", "--name", "job", "--quiet", "--", "sh", "-c", script)
    assert (done.status, done.out, done.err) == (3, binary, text)
    assert await tailed(commands, "job", "stdout") == binary
    assert await tailed(commands, "job", "stderr") == text.encode()
    messages, state = await stream_of(commands, "job")
    assert (state["state"], state["reason"]) == ("failed", {"exit_code": 3})
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    assert {key for message in messages if message["kind"] == "stderr" for key in message} >= {"text"}
    assert all(len(str(message.get("text", "")).encode()) <= 32 * 1024 for message in messages)


async def test_a_command_that_succeeds_completes_its_stream_and_its_page_is_named(
    commands: Commands, server: ServerProcess
) -> None:
    done = await commands("run", "--session", "s1", "--", "true")
    assert done.status == 0
    link = done.err.split()[1]
    assert link.startswith(f"{server.url}/#/stream/run/true-")
    shown = (await commands("show", link.partition("/stream/")[2], "--json")).objects[0]
    assert (shown["state"], shown["reason"], shown["session"], shown["kind"]) == (
        "completed",
        {"exit_code": 0},
        "s1",
        "run",
    )


@pytest.mark.parametrize(("command", "status"), [("nonexistent-command", 127), ("/dev/null", 126)])
async def test_a_command_that_cannot_be_started_gives_what_a_shell_gives(
    commands: Commands, command: str, status: int
) -> None:
    done = await commands("run", "--", command)
    assert done.status == status
    assert "error[command]: " in done.err
    assert "cure: " in done.err
    assert (await commands("ls", "--json")).out == b""


async def test_standard_input_passes_through(commands: Commands) -> None:
    done = await commands("run", "--name", "cat", "--", "cat", stdin=b"in\0put\n" * 20_000)
    assert (done.status, done.out) == (0, b"in\0put\n" * 20_000)
    assert (await kept(commands.server, "cat")).payload("stdout") == done.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_reach_the_command(commands: Commands, number: signal.Signals) -> None:
    trap = f"trap 'echo caught; exit 7' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    process = await commands.start("run", "--name", "job", "--quiet", "--", "sh", "-c", trap)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    done = await finish(process)
    assert (done.status, done.out) == (7, b"caught\n")
    assert (await stream_of(commands, "job"))[1]["reason"] == {"exit_code": 7}


async def test_a_command_that_a_signal_ends_is_told_as_a_shell_tells_it(commands: Commands) -> None:
    done = await commands("run", "--name", "job", "--", "sh", "-c", "kill -TERM $$")
    assert done.status == 128 + signal.SIGTERM
    _, state = await stream_of(commands, "job")
    assert (state["state"], state["reason"]) == ("failed", {"signal": "SIGTERM"})


async def test_a_cancel_ends_a_stubborn_command_and_its_children(commands: Commands, tmp_path: Path) -> None:
    script = f"trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/pid; sleep 600' & echo started; wait"
    process = await commands.start("run", "--name", "job", "--grace", "0.2", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    child = int(await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the child"))
    asked = await commands("cancel", "job", "--json")
    assert asked.objects[0]["cancel_requested"] is True
    assert asked.objects[0]["cancel_requested_by"] == "local"
    done = await finish(process, seconds=30)
    assert done.status == 128 + signal.SIGKILL
    _, state = await stream_of(commands, "job")
    assert (state["state"], state["reason"]) == ("cancelled", {"by": "local", "signal": "SIGKILL"})
    assert "asked to stop by local" in done.err
    await eventually(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child), "the child's end")


def is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


async def test_a_willing_command_is_cancelled_at_once(commands: Commands) -> None:
    command = ("sh", "-c", "echo started; exec sleep 600")
    process = await commands.start("run", "--name", "job", "--grace", "600", "--", *command)
    assert process.stdout is not None
    await process.stdout.readline()
    await until(commands.server, "job", lambda _: True)
    await commands("cancel", "job")
    done = await finish(process)
    assert done.status == 128 + signal.SIGTERM, "no grace had to pass"
    assert (await stream_of(commands, "job"))[1]["state"] == "cancelled"


@pytest.mark.parametrize(
    ("script", "limit"),
    [
        ("echo started; exec sleep 600", {"limit": "idle", "seconds": 0.5}),
        ("while :; do echo on and on; sleep 0.05; done", {"limit": "total", "seconds": 1.5}),
        ("trap '' TERM; echo started; while :; do sleep 0.05; done", {"limit": "idle", "seconds": 0.5}),
    ],
)
async def test_a_command_that_is_silent_or_lasts_too_long_times_out(
    commands: Commands, script: str, limit: dict[str, object]
) -> None:
    times = ("--idle-timeout", "0.5", "--total-timeout", "1.5", "--grace", "0.2")
    done = await commands("run", "--name", "job", *times, "--", "sh", "-c", script)
    assert done.status in {128 + signal.SIGTERM, 128 + signal.SIGKILL}
    assert f"timed out: {limit['seconds']} s" in done.err
    messages, state = await stream_of(commands, "job")
    assert (state["state"], state["reason"]) == ("timed_out", limit)
    assert messages, "what there was is kept"


async def test_a_command_that_ends_in_time_ends_as_it_would_have(commands: Commands) -> None:
    times = ("--idle-timeout", "60", "--total-timeout", "60")
    done = await commands("run", "--name", "job", *times, "--", "sh", "-c", "echo x; exit 4")
    assert done.status == 4
    assert (await stream_of(commands, "job"))[1]["reason"] == {"exit_code": 4}


@pytest.mark.parametrize("option", ["--idle-timeout", "--total-timeout"])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
async def test_a_time_that_is_none_is_refused_before_anything_runs(
    commands: Commands, tmp_path: Path, option: str, seconds: str
) -> None:
    done = await commands("run", f"{option}={seconds}", "--", "touch", str(tmp_path / "ran"))
    assert (done.status, "error[usage]" in done.err) == (2, True)
    assert not (tmp_path / "ran").exists()


async def test_the_same_key_is_begun_once_and_shown_again_with_its_end(commands: Commands, tmp_path: Path) -> None:
    script = f"echo begun >> {tmp_path}/ran; echo hello; echo trouble >&2; exit 3"
    for number in range(2):
        done = await commands("run", "--key", "nightly", "--", "sh", "-c", script)
        assert done.status == 3
        assert "hello\n" in done.text
        assert ("this run exists: run/sh-" in done.err) == (number == 1)
    assert (tmp_path / "ran").read_text() == "begun\n"
    other = await commands("run", "--key", "weekly", "--quiet", "--", "sh", "-c", script)
    assert (other.status, (tmp_path / "ran").read_text()) == (3, "begun\nbegun\n")
    assert len((await commands("ls", "--json")).objects) == 2


async def test_who_comes_while_a_keyed_command_runs_follows_it_to_its_end(commands: Commands, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo first; while [ ! -e {go} ]; do sleep 0.05; done; echo last; kill -TERM $$"
    first = await commands.start("run", "--key", "k", "--name", "job", "--", "sh", "-c", script)
    assert first.stdout is not None
    assert await first.stdout.readline() == b"first\n"
    second = await commands.start("run", "--key", "k", "--name", "job", "--", "sh", "-c", script)
    assert second.stdout is not None
    assert await second.stdout.readline() == b"first\n", "it sees what was before it came"
    go.touch()
    for process in (first, second):
        done = await finish(process)
        assert (done.status, done.text) == (128 + signal.SIGTERM, "last\n")


async def test_with_a_key_nothing_is_started_where_it_cannot_be_known_to_be_the_first(
    commands: Commands, tmp_path: Path
) -> None:
    done = await commands("run", "--key", "k", "--", "no-such-command")
    assert (done.status, (await commands("ls", "--json")).out) == (127, b"")
    await commands("append", "taken", "--create", "--text", "x")
    done = await commands("run", "--key", "k", "--name", "taken", "--", "touch", str(tmp_path / "ran"))
    assert (done.status, "error[already_exists]" in done.err) == (1, True)
    away = f"http://127.0.0.1:{free_port()}"
    done = await commands("run", "--server", away, "--key", "k", "--", "touch", str(tmp_path / "ran"))
    assert (done.status, "error[unreachable]" in done.err) == (69, True)
    assert not (tmp_path / "ran").exists()


async def test_a_keyed_command_that_the_system_will_not_execute_ends_its_stream_at_once(
    commands: Commands, tmp_path: Path
) -> None:
    program = tmp_path / "job"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    done = await commands("run", "--key", "k", "--name", "job", "--", str(program))
    assert (done.status, "error[command]" in done.err) == (127, True)
    _, state = await stream_of(commands, "job")
    reason = {"error": "not started", "cause": "No such file or directory", "exit_code": 127}
    assert (state["state"], state["reason"]) == ("failed", reason)
    again = await commands("run", "--key", "k", "--name", "job", "--", str(program))
    assert (again.status, "this run exists: job (failed)" in again.err) == (127, True)
    assert (await commands("delete", "job")).status == 0
    assert (await commands("run", "--key", "k", "--name", "job", "--", "true")).status == 0


async def test_what_a_command_leaves_behind_is_waited_for_told_and_ended_by_its_silence(commands: Commands) -> None:
    script = "(sleep 2; echo later; sleep 1000) & echo done"
    options = ("--grace", "0.2", "--idle-timeout", "3", "--name", "job")
    done = await commands("run", *options, "--", "sh", "-c", script)
    assert (done.status, done.text) == (0, "done\nlater\n"), "what it prints is output"
    assert done.err.count("left behind") == 1
    _, state = await stream_of(commands, "job")
    assert (state["state"], state["reason"]) == ("completed", {"exit_code": 0})


async def test_a_name_that_is_taken_is_left_alone(commands: Commands) -> None:
    assert (await commands("run", "--name", "job", "--", "echo", "first")).status == 0
    second = await commands("run", "--name", "job", "--", "echo", "second")
    assert second.status == 0
    assert "job exists already; this output goes to job.2" in second.err
    assert "continues" not in (await kept(commands.server, "job.2")).metadata
    assert (await kept(commands.server, "job")).payload("stdout") == b"first\n"
    assert (await kept(commands.server, "job.2")).payload("stdout") == b"second\n"


async def test_when_nobody_reads_our_output_the_command_learns_it(commands: Commands) -> None:
    reading, writing = os.pipe()
    process = await commands.start("run", "--name", "job", "--quiet", "--", "yes", stdout=writing)
    os.close(writing)
    os.read(reading, 100)
    os.close(reading)
    done = await finish(process)
    assert done.status == 128 + signal.SIGPIPE
    assert (await stream_of(commands, "job"))[1]["reason"] == {"signal": "SIGPIPE"}


async def test_a_slow_reader_of_our_output_does_not_cost_the_lease(commands: Commands) -> None:
    """Our stdout blocks for longer than a lease; the stream stays the run's own."""
    reading, writing = os.pipe()
    script = "import sys, time; sys.stdout.write('x' * 200_000); sys.stdout.flush()"
    process = await commands.start("run", "--name", "job", "--quiet", *python(script), stdout=writing)
    os.close(writing)
    await asyncio.sleep(8)  # longer than the lease of 6 s plus the reaper's second: that is the point
    received = await asyncio.to_thread(read_all, reading)
    assert len(received) == 200_000
    assert (await finish(process)).status == 0
    assert (await stream_of(commands, "job"))[1]["state"] == "completed"
    assert (await commands("show", "job.2")).status == 5


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


async def test_ctrl_c_in_a_terminal_reaches_the_command_once(commands: Commands) -> None:
    script = (
        "import signal, time, sys\n"
        "count = 0\n"
        "def caught(number, frame):\n"
        "    global count\n"
        "    count += 1\n"
        "signal.signal(signal.SIGINT, caught)\n"
        "print('ready', input(), flush=True)\n"
        "deadline = time.monotonic() + 30\n"
        "while not count and time.monotonic() < deadline: time.sleep(0.02)\n"
        "time.sleep(0.5)\n"
        "sys.exit(40 + count)\n"
    )
    main, other = pty.openpty()
    own = [sys.executable, "-m", "unbroken", "run", "--name", "job", "--quiet", *python(script)]
    process = subprocess.Popen(  # noqa: ASYNC220 - a fork; the waiting below is off the loop
        [sys.executable, "-c", TAKE_TERMINAL, *own],
        stdin=other,
        stdout=other,
        stderr=other,
        env=commands.environment,
        start_new_session=True,
    )
    os.close(other)
    os.write(main, b"go\n")
    shown = await asyncio.to_thread(read_until, main, b"ready go")
    assert b"ready go" in shown, "the command reads the terminal"
    os.write(main, b"\x03")
    status = await asyncio.to_thread(process.wait, 40)
    os.close(main)
    assert status == 41
    assert (await stream_of(commands, "job"))[1]["reason"] == {"exit_code": 41}


def read_until(descriptor: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown and select.select([descriptor], [], [], 30)[0]:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    return shown


async def test_an_endless_line_arrives_whole_in_pieces(commands: Commands) -> None:
    done = await commands("run", "--name", "job", "--quiet", *python("print('é' * 500_000, end='')"))
    assert done.out.decode() == "é" * 500_000
    messages, _ = await stream_of(commands, "job")
    assert "".join(str(message["text"]) for message in messages) == "é" * 500_000
    assert len(messages) >= 30


async def test_a_prompt_without_a_line_end_is_seen_while_the_command_waits(commands: Commands) -> None:
    process = await commands.start(
        "run", "--name", "job", "--quiet", *python("input('name? ')"), stdin=asyncio.subprocess.PIPE
    )
    await until(commands.server, "job", lambda view: view.head > 0)
    async with asyncio.timeout(30):
        while b"name? " not in (await kept(commands.server, "job")).payload():
            await asyncio.sleep(0.02)
    assert process.returncode is None
    await finish(process, stdin=b"x\n")


async def test_the_command_has_our_secrets_only_where_that_is_asked_for(tmp_path: Path) -> None:
    fakes = {name: f"{name}-{secrets.token_hex(8)}" for name in sorted(SECRETS)}
    server = f"http://127.0.0.1:{free_port()}"  # nobody is there; that they are used there is another test's
    commands = Commands(tmp_path / "home", server, **fakes)
    script = f"import os; print(*[os.environ.get(name, '-') for name in {[*fakes, 'UNBROKEN_SERVER']}])"
    kept_out = await commands("run", "--wait", "0", *python(script))
    passed_on = await commands("run", "--wait", "0", "--pass-secrets", *python(script))
    assert (kept_out.status, kept_out.text) == (0, f"- - - {server}\n"), kept_out.err
    assert (passed_on.status, passed_on.text) == (0, f"{' '.join(fakes.values())} {server}\n"), passed_on.err
