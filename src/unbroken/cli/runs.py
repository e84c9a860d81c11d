# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verbs about runs: start, retry, answer, and tools, which shows what there is to run.

Each asks the server once and prints the answer; the run itself is followed with `tail`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import Parameter

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.exits import Exit, UsageError
from unbroken.cli.output import clean, note, print_json, print_table
from unbroken.cli.streams import print_view
from unbroken.client.runs import RunOptions
from unbroken.client.values import Json as JsonValue
from unbroken.errors import InvalidError

__all__ = ["Identity", "answer", "retry", "start", "tools"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which run it is: with the same name or key, a repeated start finds the run that exists."""

    name: Annotated[str, Parameter(help="The name of the run's stream; made from what is run, by default.")] = ""
    key: Annotated[str, Parameter(help="A text of your own that stands for this one piece of work.")] = ""
    session: Annotated[str | None, Parameter(help="The session that the stream belongs to.")] = None


DEFAULT_IDENTITY: Final = Identity()


def start(
    kind: Literal["task", "tool", "program"],
    name: str,
    /,
    *arguments: str,
    identity: Identity = DEFAULT_IDENTITY,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Start a run on the server, where it goes on whoever watches: unbroken start task report pages=3.

    A tool is named SERVER/TOOL. Each argument is NAME=VALUE, the value JSON where it is JSON and a text otherwise.

    Args:
        kind: What it is.
        name: Its name, as `unbroken tools` shows it.
        arguments: Its arguments.
    """
    given = dict(map(_argument, arguments))
    options = RunOptions(name=identity.name, key=identity.key, session=identity.session)
    server, _, tool = name.rpartition("/") if kind == "tool" else ("", "", name)
    if kind == "tool" and not server:
        raise UsageError("a tool is named SERVER/TOOL, as `unbroken tools` shows it")
    if kind == "program" and given:
        raise UsageError("a program takes no arguments: its command is the server's")

    async def work() -> int:
        async with connection.client() as client:
            if kind == "task":
                view = await client.runs.task(tool, given, options)
            elif kind == "tool":
                view = await client.runs.tool(server, tool, given, options)
            else:
                view = await client.runs.program(tool, options)
        print_view(view, as_json=json)
        if not json:
            note(f"follow it: unbroken tail --follow {clean(view.stream)}")
        return Exit.OK

    return run_async(work())


def _argument(text: str) -> tuple[str, JsonValue]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"an argument is NAME=VALUE, not {text!r}")
    try:
        decoded: JsonValue = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return name, value
    return name, decoded


def retry(name: str, /, *, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> int:
    """Run once more what ended badly, as a run of its own.

    Args:
        name: The name of the run's stream.
    """

    async def work() -> int:
        async with connection.client() as client:
            print_view(await client.runs.retry(name), as_json=json)
        return Exit.OK

    return run_async(work())


def answer(
    name: str,
    response: str,
    /,
    *,
    question: str = "question-1",
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Answer a question that a run has asked.

    Args:
        name: The name of the run's stream.
        response: The answer, as JSON.
        question: The question's id, as `tail` shows it.
    """
    try:
        decoded: JsonValue = msgspec.json.decode(response)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidError(f"the answer is not JSON: {error}", field="response") from None

    async def work() -> int:
        async with connection.client() as client:
            seq = await client.runs.answer(name, question, decoded)
        if json:
            print_json({"stream": name, "seq": seq})
        else:
            sys.stdout.write(f"answered: message {seq} of {clean(name)}\n")
        return Exit.OK

    return run_async(work())


def tools(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> int:
    """Show what the server can run: tasks, MCP tools and programs."""

    async def work() -> int:
        async with connection.client() as client:
            sources = await client.runs.available()
        rows: list[list[str]] = []
        for source in sources:
            if json:
                print_json(source)
            if source.error:
                note(f"{clean(source.server or source.type)}: {clean(source.error)}")
            for found in source.runnables:
                place = f"{found.server}/{found.name}" if found.server else found.name
                rows.append([found.type, clean(place), clean(found.title or found.description.partition("\n")[0])])
        if not json:
            print_table(["KIND", "NAME", "WHAT IT DOES"], rows)
        return Exit.OK

    return run_async(work())
