"""Real reverse proxies between a client and a server: nginx and HAProxy, with time-outs short enough for a test.

They are the programs of this machine, started on loopback and ended with their block. What they do to connections when they
are reloaded, restarted, or find the server dead or silent is theirs alone.
"""

from __future__ import annotations

import abc
import asyncio
import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from unbroken.testing.ports import free_port

__all__ = ["HaproxyProcess", "NginxProcess", "ReverseProxy", "find_program"]

IDLE_SECONDS = 2
CEILING_SECONDS = 30.0
NGINX = """
daemon off; master_process on; worker_processes 1; error_log stderr; pid {directory}/pid; worker_shutdown_timeout 1s;
events {{}}
http {{
    access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{server}; proxy_http_version 1.1; proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
            proxy_buffering on; proxy_connect_timeout 2s; proxy_read_timeout {idle}s; proxy_send_timeout {idle}s;
        }}
    }}
}}
"""
HAPROXY = """
global
    hard-stop-after 1s
defaults
    mode http
    timeout connect 2s
    timeout client {idle}s
    timeout server {idle}s
    timeout tunnel {idle}s
    option http-buffer-request
frontend in
    bind 127.0.0.1:{port}
    default_backend out
backend out
    server unbroken 127.0.0.1:{server}
"""


def find_program(name: str) -> str | None:
    """The executable on PATH, or where systems keep those of services."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


class ReverseProxy(abc.ABC):
    """A proxy process on a port of its own, before the port `server` of this machine; `async with` starts and ends it.

    It keeps its configuration in `directory`. `program` is where its executable is (None: found on PATH, `FileNotFoundError`
    where there is none); after `idle_seconds` without a byte it gives a connection up.
    """

    name: str

    def __init__(
        self, directory: Path, server: int, program: str | None = None, *, idle_seconds: int = IDLE_SECONDS
    ) -> None:
        found = program or find_program(self.name)
        if found is None:
            raise FileNotFoundError(f"{self.name} is not on PATH")
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.environment: dict[str, str] = {}
        """What its processes get besides our own environment."""
        self._program = found
        self._server = server
        self._idle_seconds = idle_seconds
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def _process(self) -> asyncio.subprocess.Process:
        return self._processes[-1]

    async def start(self) -> None:
        """Start it and wait until it answers, whatever it says."""
        await self._spawn()
        async with asyncio.timeout(CEILING_SECONDS):
            while await self.status() is None:
                if self._process.returncode is not None:
                    raise RuntimeError(f"{self.name} did not start: it ended with {self._process.returncode}")
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End it at once, with every connection, also of a process that a reload has left behind."""
        alive = [process for process in self._processes if process.returncode is None]
        for process in alive:
            process.terminate()
        for process in alive:
            await process.wait()

    @abc.abstractmethod
    async def reload(self) -> None:
        """Let it read its configuration again, as an operator does: old connections are shut down a little later."""

    async def status(self) -> int | None:
        """The status with which it answers a short request."""
        async with httpx2.AsyncClient(trust_env=False, timeout=CEILING_SECONDS) as client:
            try:
                return (await client.get(f"{self.url}/livez")).status_code
            except httpx2.TransportError:
                return None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(5):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    @abc.abstractmethod
    async def _spawn(self) -> None: ...

    async def _run(self, *command: str) -> None:
        devnull = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *command, stdin=devnull, stdout=devnull, stderr=devnull, env={**os.environ, **self.environment}
        )
        self._processes.append(process)

    def _config(self, text: str, name: str) -> str:
        file = self.directory / name
        values = {"directory": self.directory, "port": self.port, "server": self._server, "idle": self._idle_seconds}
        file.write_text(text.format(**values))
        return str(file)


class NginxProcess(ReverseProxy):
    """nginx, with buffering left on as it is when nobody thought of streaming."""

    name = "nginx"

    async def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    async def _spawn(self) -> None:
        await self._run(self._program, "-p", str(self.directory), "-c", self._config(NGINX, "nginx.conf"))


class HaproxyProcess(ReverseProxy):
    """HAProxy; a reload is a new process that asks the old one to finish."""

    name = "haproxy"

    async def reload(self) -> None:
        await self._spawn("-sf", str(self._process.pid))

    async def _spawn(self, *arguments: str) -> None:
        config = self._config(HAPROXY, "haproxy.cfg")
        await self._run(self._program, "-f", config, "-db", *arguments)
