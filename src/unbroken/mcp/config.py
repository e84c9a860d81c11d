"""The MCP servers that an operator configured, read from the files that people already have.

`mcpServers` as Claude, Cursor and others write it, and VS Code's `servers` with `inputs`. Variables are expanded here, once;
no text of an error ever holds a value, so that a secret in a file or in the environment is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from unbroken.errors import ConfigurationError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.mcp.options import Options, parse_options
from unbroken.messages import UNREADABLE

__all__ = ["INHERITED", "HttpServer", "ServerConfig", "StdioServer", "load_servers", "parse_servers", "sendable"]

INHERITED: Final = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
"""Variables that a process gets of ours, as with the official SDK; every other one is a secret until it is configured."""
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SERVER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
_STDIO_FIELDS: Final = frozenset({"command", "args", "env", "cwd"})
_HTTP_FIELDS: Final = frozenset({"url", "headers", "headersHelper"})
_HTTP_TYPES: Final = frozenset({"http", "streamable-http", "streamableHttp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioServer:
    """A program that speaks MCP on its standard input and output. Its arguments and environment may hold secrets."""

    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """A Streamable HTTP endpoint. Its URL and headers may hold secrets; `helper` is a command that prints headers as JSON."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    helper: tuple[str, ...] = field(default=(), repr=False)

    @property
    def origin(self) -> tuple[str, str, int | None]:
        """Scheme, host and port: requests with the configured headers go nowhere else."""
        parts = urlsplit(self.url)
        return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One server: its name, how it is reached, and how its tools are called."""

    name: str
    reach: StdioServer | HttpServer
    options: Options = field(default_factory=Options)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """Values that came from variables and inputs: they are taken out of everything that the server says."""


@dataclass(frozen=True, slots=True)
class _Expansion:
    """Replaces variables in the texts of one server."""

    server: str
    environment: Mapping[str, str]
    inputs: Mapping[str, str]
    given: set[str] = field(default_factory=set, repr=False)

    def text(self, place: str, value: object) -> str:
        if not isinstance(value, str):
            raise ConfigurationError(f"MCP server {self.server!r}: {place} is text")
        return _VARIABLE.sub(lambda match: self._variable(place, match[1]), value)

    def texts(self, place: str, value: object) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise ConfigurationError(f"MCP server {self.server!r}: {place} is a list of texts")
        return tuple(self.text(f"{place}[{number}]", item) for number, item in enumerate(value))

    def table(self, place: str, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"MCP server {self.server!r}: {place} is an object of texts")
        return {str(name): self.text(f"{place}.{name}", item) for name, item in value.items()}

    def _variable(self, place: str, name: str) -> str:
        where = f"MCP server {self.server!r}: {place}"
        if name.startswith("input:"):
            given = self.inputs.get(name[6:])
            if given is None:
                raise ConfigurationError(f"{where} asks for the input {name[6:]!r}, which has no value here")
            self.given.add(given)
            return given
        if name.startswith("env:"):
            name = name[4:]
        name, separator, default = name.partition(":-")
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{where} has a variable that is not of the form ${{NAME}} or ${{NAME:-default}}")
        found = self.environment.get(name)
        if separator and not found:
            return default
        if found is None:
            raise ConfigurationError(f"{where} names the variable {name}, which is not set")
        if name not in INHERITED:
            self.given.add(found)
        return found


def load_servers(
    path: Path,
    environment: Mapping[str, str],
    *,
    inputs: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[ServerConfig]:
    """The servers of the file `path`; `ConfigurationError` says what is wrong with which."""
    try:
        with path.open("rb") as file:
            text = file.read(limits.mcp_config_bytes_max + 1)
    except OSError as error:
        raise ConfigurationError(f"the MCP servers of {path} cannot be read: {error.strerror}") from None
    if len(text) > limits.mcp_config_bytes_max:
        raise ConfigurationError(f"{path} has more than {limits.mcp_config_bytes_max} bytes")
    try:
        return parse_servers(text, environment, inputs=inputs, limits=limits)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}") from None


def parse_servers(
    text: bytes,
    environment: Mapping[str, str],
    *,
    inputs: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[ServerConfig]:
    """The servers that the JSON `text` configures, in its order. Other keys of the file are other programs' affair."""
    try:
        document = msgspec.json.decode(text)
    except UNREADABLE:
        raise ConfigurationError("a file of MCP servers is a JSON object with mcpServers") from None
    key = next((key for key in ("mcpServers", "servers") if isinstance(document, dict) and key in document), None)
    if key is None:
        raise ConfigurationError("a file of MCP servers is a JSON object with mcpServers (or servers)")
    entries = document[key]
    if not isinstance(entries, dict):
        raise ConfigurationError(f"{key} is an object of servers by their name")
    if len(entries) > limits.mcp_servers_max:
        raise ConfigurationError(f"{key} has at most {limits.mcp_servers_max} servers")
    values = {**_defaults(document.get("inputs")), **(inputs or {})}
    expansions = (_Expansion(name, environment, values) for name in entries)
    return [_server(expand, entries[expand.server], limits) for expand in expansions]


def _defaults(inputs: object) -> dict[str, str]:
    """Values that VS Code's `inputs` come with; one that is to be typed in has none."""
    found: dict[str, str] = {}
    for entry in inputs if isinstance(inputs, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and isinstance(entry.get("default"), str):
            found[entry["id"]] = entry["default"]
    return found


def _server(expand: _Expansion, entry: object, limits: Limits) -> ServerConfig:
    name = expand.server
    if not _SERVER.fullmatch(name):
        raise ConfigurationError("the name of an MCP server has 1 to 100 letters, digits, spaces, dots, _ and -")
    if not isinstance(entry, dict):
        raise ConfigurationError(f"MCP server {name!r} is an object")
    reach = _reach(name, entry)(expand, entry)
    options = parse_options(name, entry.get("unbroken"), limits)
    return ServerConfig(name=name, reach=reach, options=options, secrets=frozenset(expand.given))


def _reach(
    name: str, entry: Mapping[str, object]
) -> Callable[[_Expansion, Mapping[str, object]], StdioServer | HttpServer]:
    """Which of the two ways leads to the server."""
    kind = entry.get("type", entry.get("transport"))
    if kind == "sse":
        raise ConfigurationError(
            f"MCP server {name!r}: the old transport sse is not spoken here; use its http endpoint"
        )
    if kind is None:
        kind = "stdio" if "command" in entry else "http"
    if kind == "stdio":
        build, needed, foreign = _stdio, "command", _HTTP_FIELDS
    elif isinstance(kind, str) and kind in _HTTP_TYPES:
        build, needed, foreign = _http, "url", _STDIO_FIELDS
    else:
        raise ConfigurationError(f"MCP server {name!r}: type is stdio, http or streamable-http")
    if needed not in entry:
        raise ConfigurationError(f"MCP server {name!r}: {needed} is missing")
    if stray := sorted(foreign & entry.keys()):
        raise ConfigurationError(f"MCP server {name!r}: {', '.join(stray)} does not go with {needed}")
    return build


def _stdio(expand: _Expansion, entry: Mapping[str, object]) -> StdioServer | HttpServer:
    command = expand.text("command", entry["command"])
    if not command:
        raise ConfigurationError(f"MCP server {expand.server!r}: command is empty")
    env = expand.table("env", entry.get("env"))
    cwd = entry.get("cwd")
    if any("\0" in text for text in (command, *env, *env.values())):
        raise ConfigurationError(f"MCP server {expand.server!r}: command and env hold no zero bytes")
    return StdioServer(
        command=command,
        args=expand.texts("args", entry.get("args")),
        env=env,
        cwd=None if cwd is None else expand.text("cwd", cwd),
    )


def _http(expand: _Expansion, entry: Mapping[str, object]) -> StdioServer | HttpServer:
    url = expand.text("url", entry["url"])
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"MCP server {expand.server!r}: url is an http or https URL")
    headers = expand.table("headers", entry.get("headers"))
    if not all(sendable(name, value) for name, value in headers.items()):
        raise ConfigurationError(f"MCP server {expand.server!r}: headers holds one that HTTP does not allow")
    return HttpServer(url=url, headers=headers, helper=_helper(expand, entry.get("headersHelper")))


def _helper(expand: _Expansion, value: object) -> tuple[str, ...]:
    """A text is the shell's, as in the programs that read the same file; a list is a command and its arguments."""
    if value is None:
        return ()
    if isinstance(value, str):
        command: tuple[str, ...] = ("/bin/sh", "-c", expand.text("headersHelper", value))
    else:
        command = expand.texts("headersHelper", value)
    if not command or not command[-1] or not command[0] or any("\0" in text for text in command):
        raise ConfigurationError(f"MCP server {expand.server!r}: headersHelper is a command")
    return command


def sendable(name: str, value: str) -> bool:
    """Whether HTTP allows this header."""
    return bool(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) and re.fullmatch(r"[\x20-\x7e\t]*", value))
