"""Makes the pages of docs/reference that describe settings, limits, metrics and the Python API, and the table of states.

`python -m tests.docs.generate` writes them; test_reference.py compares. The pages of the command line and the errors come
from `unbroken.cli.reference`.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from pydantic_core import PydanticUndefined

import unbroken
from tests.docs.limits import MEANING
from tests.support.sbom import bill_of_materials
from unbroken.client import Client, SyncClient
from unbroken.client.runs import ClientRuns
from unbroken.client.sync_runs import SyncRuns
from unbroken.limits import DEFAULT_LIMITS, KIB, MIB, Limits
from unbroken.messages import TRANSITIONS, StreamState
from unbroken.observe.metrics import Metrics
from unbroken.server.openapi import openapi
from unbroken.settings import Settings

__all__ = ["ROOT", "STATES_BEGIN", "STATES_END", "pages", "states_table", "with_states"]

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
STATES_BEGIN = "<!-- states: made by `python -m tests.docs.generate` -->"
STATES_END = "<!-- end of states -->"
NOTE = "<!-- Made by `python -m tests.docs.generate`; a test compares. Do not edit. -->"
SECRET = {"token"}
SHORT = 40
BEHIND: dict[object, type] = {vars(Client)["runs"].fget: ClientRuns, vars(SyncClient)["runs"].fget: SyncRuns}
"""What a property gives, where its calls are told with it."""


def pages() -> dict[Path, str]:
    """Every page with what it should say."""
    texts = {
        "settings.md": settings_page(),
        "limits.md": limits_page(),
        "metrics.md": metrics_page(),
        "api.md": api_page(),
        "sbom.cdx.json": json.dumps(bill_of_materials(), indent=1) + "\n",
        "openapi.json": json.dumps(openapi(), indent=1) + "\n",
    }
    return {REFERENCE / name: text for name, text in texts.items()}


# --- settings, limits, metrics ----------------------------------------------------------------------------------------


def settings_page() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        flag = "" if name in SECRET else f"`--{name.replace('_', '-')}`"
        default = "" if field.default in (None, (), PydanticUndefined) else f"`{field.default}`"
        rows.append([f"`UNBROKEN_{name.upper()}`", flag, default, field.description or ""])
    text = """
Of `unbroken serve`. A flag comes before its variable. A setting with a value that cannot be ends the command with exit
code 78 and names the setting. The token has no flag: arguments can be seen by every user of a machine.

An application that embeds Unbroken gives its settings to `Unbroken(…)` instead; see [api.md](api.md)."""
    return _page("Settings", text, _table(["variable", "flag", "default", "meaning"], rows))


def limits_page() -> str:
    rows = [[f"`{field.name}`", _amount(field.name, field.default), MEANING[field.name]] for field in fields(Limits)]
    text = """
Everything is bounded. These are the bounds of one process, with their defaults. Those that have a setting are in
[settings.md](settings.md); an application passes others as `Unbroken(limits=Limits(…))` or `Client(limits=Limits(…))`.
Who reaches one gets `too_large` (asking again is pointless) or `overloaded` (come back later); see [errors.md](errors.md)."""
    return _page("Limits", text, _table(["limit", "default", "bounds"], rows))


def metrics_page() -> str:
    rows = []
    for metric in Metrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        rows.append([f"`{name}`", metric.type, ", ".join(_labels(metric.name)), metric.documentation])
    text = """
At `GET /metrics`, in the text format of Prometheus; with a token where one is set. Names of streams or users are never
labels, so the number of series is bounded."""
    return _page("Metrics", text, _table(["metric", "type", "labels", "meaning"], rows))


def _labels(name: str) -> tuple[str, ...]:
    for value in vars(Metrics()).values():
        if getattr(value, "_name", None) == name:
            labels: tuple[str, ...] = value._labelnames
            return labels
    return ()  # one that is counted elsewhere and only shown here


def _amount(name: str, value: Any) -> str:
    if "bytes" in name:
        for unit, size in (("MiB", MIB), ("KiB", KIB)):
            if value >= size and value % size == 0:
                return f"{int(value) // size:,} {unit}"
        return f"{value:,} bytes"
    return f"{value:,g} s" if "seconds" in name else f"{value:,}"


# --- states -----------------------------------------------------------------------------------------------------------


def states_table() -> str:
    """Which state follows which."""
    rows = []
    for state in StreamState:
        followers = [other for other in StreamState if other in TRANSITIONS[state]]
        live = [f"`{other}`" for other in followers if not other.terminal]
        ends = [f"`{other}`" for other in followers if other.terminal]
        every = {other for other in StreamState if other.terminal} == {other for other in followers if other.terminal}
        rows.append([f"`{state}`", ", ".join(live) or "none", ("every one" if every else ", ".join(ends)) or "none"])
    return _table(["from", "to another living state", "to a terminal state"], rows)


def with_states(text: str) -> str:
    """`text` with the table between its markers made anew."""
    before, rest = text.split(STATES_BEGIN)
    _, after = rest.split(STATES_END)
    return f"{before}{STATES_BEGIN}\n{states_table()}\n{STATES_END}{after}"


# --- the API ----------------------------------------------------------------------------------------------------------


def api_page() -> str:
    text = """
The names that `from unbroken import …` gives; each is loaded when it is first asked for, so a client never loads the
server. The words are those of [ARCHITECTURE.md](../../ARCHITECTURE.md); errors are in [errors.md](errors.md), `Limits` in
[limits.md](limits.md)."""
    parts = []
    for name in unbroken.__all__:
        kind = getattr(unbroken, name)
        parts.append(f"## `{name}`\n\n{_paragraphs(inspect.getdoc(kind))}")
        if isinstance(kind, type):
            parts += _members(kind)
    return _page("Python API", text, *parts)


def _members(kind: type) -> Iterator[str]:
    if kind is Limits:
        return
    if issubclass(kind, Enum):
        yield "One of " + ", ".join(f"`{member.value}`" for member in kind) + "."
        return
    if issubclass(kind, msgspec.Struct) or hasattr(kind, "__dataclass_fields__"):
        names = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else kind.__dataclass_fields__
        yield "Fields: " + ", ".join(f"`{name}`" for name in names) + "."
    elif kind.__init__ is not Exception.__init__:
        yield f"```python\n{_call(kind.__name__, kind.__init__)}\n```"
    for name, member in vars(kind).items():
        if not name.startswith("_"):
            yield from _member(name, member)


def _member(name: str, member: object) -> Iterator[str]:
    if isinstance(member, property):
        yield f"### `{name}`\n\n{_paragraphs(inspect.getdoc(member))}".rstrip()
        for call, function in vars(BEHIND.get(member.fget, object)).items():
            if isinstance(function, types.FunctionType) and call[0] != "_":
                yield from _member(f"{name}.{call}", function)
        return
    if isinstance(member, classmethod | staticmethod):
        member = member.__func__
    if isinstance(member, types.FunctionType):
        is_async = inspect.iscoroutinefunction(member)
        heading = f"### `{name}`\n\n```python\n{'await ' if is_async else ''}{_call(name, member)}\n```"
        yield f"{heading}\n\n{_paragraphs(inspect.getdoc(member))}".rstrip()


def _call(name: str, function: Callable[..., Any]) -> str:
    """The signature on one line, or with a line for each parameter."""
    signature = inspect.signature(function)
    shown: list[str] = []
    keyword_only = False
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        shown.append(_parameter(parameter))
    result = signature.return_annotation
    arrow = "" if result in (signature.empty, None, "None") or name[0].isupper() else f" -> {result}"
    line = f"{name}({', '.join(shown)}){arrow}"
    return line if len(line) <= 110 else f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    text = f"{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    default = "Limits()" if parameter.default is DEFAULT_LIMITS else repr(parameter.default)
    return f"{text} = {default if len(default) <= SHORT else '…'}"


# --- form -------------------------------------------------------------------------------------------------------------


def _paragraphs(doc: str | None) -> str:
    return re.sub(r"[ \t]+\n", "\n", doc or "")


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTE, *(part.strip("\n") for part in parts)]) + "\n"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def main() -> None:
    """Write every page, and the table in ARCHITECTURE.md."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    architecture = ROOT / "ARCHITECTURE.md"
    architecture.write_text(with_states(architecture.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
