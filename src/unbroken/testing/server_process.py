"""`TestedServer`: a real `unbroken serve` as a process, for the tests of applications that use one.

The pytest plugin's fixture `unbroken_server` makes it. It blocks, so that tests of every kind can use it, and ends what it
started in any case.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from unbroken.testing.ports import free_port

__all__ = ["TestedServer"]

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class TestedServer:
    """A server with an SQLite database in `directory`; the same address and the same database over every restart.

    Use it as a context manager. `arguments` are further ones of `unbroken serve`. Its methods block until the process is
    there, or gone; `log` is what it has printed.
    """

    __test__ = False  # pytest takes classes whose names begin with Test for tests

    def __init__(self, directory: Path, arguments: Sequence[str] = ()) -> None:
        self.directory = directory
        self.url = ""
        self.log = ""
        self._arguments = list(arguments)
        self._process: subprocess.Popen[str] | None = None
        self._listening: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The process's id; `RuntimeError` when there is none."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens; a server that does not fails here with what it said."""
        if self._process is not None:
            raise RuntimeError("the server runs already")
        port = self.url.rpartition(":")[2] or str(free_port())
        store = f"sqlite:///{self.directory / 'unbroken.db'}"
        command = [sys.executable, "-m", "unbroken", "serve", "--port", port, "--store", store, *self._arguments]
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=self.directory,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._process = process
        said = threading.Event()
        threading.Thread(target=self._read, args=(process, said), daemon=True).start()
        said.wait(START_SECONDS)
        if self._listening is not process:
            self.kill()
            raise RuntimeError(f"the server did not start:\n{self.log}")

    def kill(self) -> None:
        """`kill -9`: no flush, no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: it drains and says goodbye."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it and start it again with what is in its database."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """It keeps its sockets and does nothing until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _read(self, process: subprocess.Popen[str], said: threading.Event) -> None:
        """Collect what it prints, in a thread of its own, until it is gone; `said` is set when it listens, or never will."""
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                self.log += line
                if found := re.search(r"listening on (http://\S+)", line):
                    self.url = found[1]
                    self._listening = process
                    said.set()
        said.set()
