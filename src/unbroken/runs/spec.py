"""What is to be run, as it is stored with a stream; what a client says to start it, and what it is told there is.

Pure values: the desk makes a `RunSpec` from a request, the supervisor finds what it names. It never executes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from unbroken.errors import CorruptError, InvalidError
from unbroken.limits import Limits
from unbroken.messages import check_depth
from unbroken.protocol.frames import StreamView

__all__ = [
    "INPUT_ID_CHARACTERS_MAX",
    "RunOptions",
    "RunRequest",
    "RunSpec",
    "RunSummary",
    "RunType",
    "RunnableView",
    "SourceView",
    "SummaryMessage",
    "run_name",
]

RunType = str
"""`task`, `tool` or `program`."""
INPUT_ID_CHARACTERS_MAX: Final = 200
"""How long the id of a question may be."""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a server executes for a stream. `server` is the MCP server of a tool; seconds of None are the runnable's own."""

    type: RunType
    name: str
    server: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    idle_seconds: float | None = None
    total_seconds: float | None = None
    retry_of: str = ""

    def encode(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str) -> RunSpec:
        """What `encode` gave; `CorruptError` for anything else."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise CorruptError(f"a stored run is not one: {error}") from None

    def same_work(self, other: RunSpec) -> bool:
        """Whether both ask for the same, so that a repeated start attaches."""
        return (self.type, self.server, self.name) == (other.type, other.server, other.name) and (
            msgspec.json.decode(self.arguments) == msgspec.json.decode(other.arguments)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to start a run: `key` (or `name`, that of its stream) makes a repeated start attach to the run that exists."""

    name: str = ""
    key: str = ""
    session: str | None = None
    metadata: Mapping[str, object] | None = None
    ttl_seconds: int | None = None
    idle_seconds: float | None = None
    total_seconds: float | None = None


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A start, on every face: exactly one of `task`, `tool` (with `server`) and `program`.

    `key` makes a repeated start attach to the run that exists; so does `name`, the name of the run's stream.
    """

    task: str = ""
    tool: str = ""
    server: str = ""
    program: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    name: str = ""
    key: str = ""
    session: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    ttl_seconds: int | None = None
    idle_seconds: float | None = None
    total_seconds: float | None = None

    def spec(self, limits: Limits) -> RunSpec:
        """The run that is asked for; `InvalidError` or `TooLargeError` when it is none."""
        named = [(kind, name) for kind, name in self._named() if name]
        if len(named) != 1:
            raise InvalidError("a start names exactly one of task, tool and program", field="task")
        kind, name = named[0]
        if bool(self.server) != (kind == "tool"):
            raise InvalidError("server names the MCP server of a tool, and only of a tool", field="server")
        arguments = _object("arguments", bytes(self.arguments), limits)
        for field, seconds in (("idle_seconds", self.idle_seconds), ("total_seconds", self.total_seconds)):
            if seconds is not None and not 0 < seconds <= limits.run_seconds_max:
                raise InvalidError(f"{field} is above 0 and at most {limits.run_seconds_max:.0f}", field=field)
        return RunSpec(
            type=kind,
            name=name,
            server=self.server,
            arguments=msgspec.Raw(arguments),
            idle_seconds=self.idle_seconds,
            total_seconds=self.total_seconds,
        )

    def _named(self) -> tuple[tuple[RunType, str], ...]:
        return ("task", self.task), ("tool", self.tool), ("program", self.program)


class RunnableView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A runnable as clients see it: enough for a picker and a form. `input_schema` is JSON Schema of its arguments."""

    type: RunType
    name: str
    server: str = ""
    title: str = ""
    description: str = ""
    input_schema: msgspec.Raw = msgspec.Raw(b'{"type":"object"}')
    annotations: msgspec.Raw = msgspec.Raw(b"{}")


class SourceView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one source offers; `error` says in one sentence why it offers nothing, when it should."""

    type: RunType
    server: str = ""
    runnables: tuple[RunnableView, ...] = ()
    error: str = ""


class SummaryMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of a run in its summary; with `cut` it has contents that are not here."""

    seq: int
    kind: str
    time: int = 0
    text: str | UnsetType = UNSET
    json: msgspec.Raw | UnsetType = UNSET
    cut: bool = False


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run in short: the newest message of each kind that tells of it and its open questions, in order, up to `cursor`."""

    stream: StreamView
    messages: list[SummaryMessage]
    cursor: str
    complete: bool


def _object(field: str, text: bytes, limits: Limits) -> bytes:
    if len(text) > limits.run_spec_bytes_max:
        raise InvalidError(f"{field} has at most {limits.run_spec_bytes_max} bytes", field=field)
    check_depth(text, limits)
    try:
        msgspec.json.decode(text, type=dict[str, object])  # all of it: its numbers too are read later
        return msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidError(f"{field} is a JSON object with numbers that can be held", field=field) from None


def run_name(spec: RunSpec, unique: str) -> str:
    """The name of the stream of a run that was not given one: `unique` is its key, or chance."""
    digest = hashlib.sha256(unique.encode()).hexdigest()[:16]
    place = f"{spec.server}/{spec.name}" if spec.server else spec.name
    readable = "".join(character if character.isalnum() or character in "._-/" else "-" for character in place[:100])
    parts = [part for part in readable.split("/") if part.strip(".")]
    return "/".join(["runs", *parts, digest])
