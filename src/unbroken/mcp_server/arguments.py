"""The arguments of each tool: what an agent may say, with its bounds, and the JSON Schema that tells it so.

`tools` decodes every call into one of these. Whatever does not fit is an `InvalidError` that names the field.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from unbroken.errors import InvalidError
from unbroken.limits import DEFAULT_LIMITS

__all__ = [
    "AnswerInput",
    "Arguments",
    "ListRunnables",
    "ListStreams",
    "ReadStream",
    "StartTask",
    "StreamNamed",
    "arguments_of",
    "schema_of",
]

_ITEMS_MAX = DEFAULT_LIMITS.agent_items_max
_WAIT_MS_MAX = int(DEFAULT_LIMITS.agent_wait_seconds_max * 1000)
_NAME = Meta(min_length=1, max_length=DEFAULT_LIMITS.name_bytes_max)
A = TypeVar("A", bound="Arguments")


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent says; an argument that is not known is refused."""


class ListRunnables(Arguments, frozen=True, kw_only=True):
    search: Annotated[
        str, Meta(max_length=200, description="Only those with this text in their name, server or description.")
    ] = ""
    limit: Annotated[int, Meta(ge=1, le=_ITEMS_MAX)] = 50


class StartTask(Arguments, frozen=True, kw_only=True):
    task: Annotated[str, Meta(max_length=512, description="The name of a task, as list_runnables shows it.")] = ""
    tool: Annotated[str, Meta(max_length=512, description="The name of an MCP server's tool; needs `server`.")] = ""
    server: Annotated[str, Meta(max_length=512, description="The MCP server of `tool`.")] = ""
    program: Annotated[str, Meta(max_length=512, description="The name of a program; it takes no arguments.")] = ""
    arguments: Annotated[dict[str, object], Meta(description="As the runnable's input_schema says.")] = {}
    key: Annotated[
        str,
        Meta(
            max_length=512,
            description=(
                "A text of your own that stands for this one piece of work. With the same key a repeated call starts "
                "nothing and finds the run that exists: always give one when you might have to ask again."
            ),
        ),
    ] = ""
    session: Annotated[str, Meta(max_length=512, description="The session to group the stream under.")] = ""


class StreamNamed(Arguments, frozen=True, kw_only=True):
    stream: Annotated[str, _NAME, Meta(description="The name of the stream, as start_task gave it.")]


class ReadStream(StreamNamed, frozen=True, kw_only=True):
    after: Annotated[
        str,
        Meta(
            max_length=64,
            description="The cursor of what you have; or start, now, or last:N. Go on with the answer's cursor.",
        ),
    ] = "start"
    limit: Annotated[int, Meta(ge=1, le=_ITEMS_MAX, description="At most so many messages.")] = 100
    wait_ms: Annotated[
        int, Meta(ge=0, le=_WAIT_MS_MAX, description="How long to wait for a message when there is none yet.")
    ] = 0


class ListStreams(Arguments, frozen=True, kw_only=True):
    session: Annotated[str, Meta(max_length=512, description="Only those of this session.")] = ""
    prefix: Annotated[str, Meta(max_length=512, description="Only names that begin with this.")] = ""
    active: Annotated[bool | None, Meta(description="Only those that go on, or only those that have ended.")] = None
    limit: Annotated[int, Meta(ge=1, le=_ITEMS_MAX)] = 50
    page: Annotated[str, Meta(max_length=2_048, description="`next` of the page before.")] = ""


class AnswerInput(StreamNamed, frozen=True, kw_only=True):
    question: Annotated[str, Meta(min_length=1, max_length=200, description="The id that get_task shows.")]
    response: Annotated[object, Meta(description="Any JSON value; the question's schema says which.")]


def arguments_of(kind: type[A], given: dict[str, object]) -> A:
    """What an agent has said, checked; `InvalidError` for anything that does not fit."""
    try:
        return msgspec.convert(given, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidError(f"the arguments do not fit: {error}", field="arguments") from None


def schema_of(kind: type[Arguments]) -> dict[str, object]:
    """JSON Schema of the arguments, as a tool's `inputSchema`."""
    _, components = msgspec.json.schema_components([kind], schema_hook=lambda _: {"description": "Any JSON value."})
    schema = dict(components[kind.__name__])
    schema.pop("title", None)
    schema.pop("description", None)
    return schema
