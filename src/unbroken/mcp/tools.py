"""A server's tools as we keep them: checked, cut, and with the hints that decide whether a call may be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from unbroken.mcp.options import Options
from unbroken.runs.spec import RunnableView

__all__ = ["Tool", "tools_of"]

NAME_CHARACTERS_MAX: Final = 200
TITLE_CHARACTERS_MAX: Final = 200
DESCRIPTION_CHARACTERS_MAX: Final = 4_000
SCHEMA_BYTES_MAX: Final = 64 * 1024
HINTS: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool of a server."""

    name: str
    title: str = ""
    description: str = ""
    input_schema: bytes = b'{"type":"object"}'
    output_schema: Mapping[str, object] | None = None
    hints: Mapping[str, bool]
    headers: bool = False
    """Whether its schema asks for arguments in HTTP headers: then the session that calls it must have listed it."""

    def repeatable(self, options: Options) -> bool:
        """Whether a call that may have run may be made again."""
        if options.retry != "ask":
            return options.retry == "always"
        return options.trusted and (self.hints.get("readOnlyHint", False) or self.hints.get("idempotentHint", False))

    def view(self, server: str) -> RunnableView:
        """As clients see it."""
        return RunnableView(
            type="tool",
            server=server,
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=msgspec.Raw(self.input_schema),
            annotations=msgspec.Raw(msgspec.json.encode(dict(self.hints))),
        )


def tools_of(listed: Iterable[Mapping[str, object]]) -> dict[str, Tool]:
    """The tools of a listing by name; the first of a name counts, and one without a usable name is left out."""
    found: dict[str, Tool] = {}
    for raw in listed:
        name = raw.get("name")
        if isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX:
            found.setdefault(name, _tool(name, raw))
    return found


def _tool(name: str, raw: Mapping[str, object]) -> Tool:
    annotations = raw.get("annotations")
    annotations = annotations if isinstance(annotations, Mapping) else {}
    schema = msgspec.json.encode(raw.get("inputSchema"))
    output = raw.get("outputSchema")
    return Tool(
        name=name,
        title=str(raw.get("title") or annotations.get("title") or "")[:TITLE_CHARACTERS_MAX],
        description=str(raw.get("description") or "")[:DESCRIPTION_CHARACTERS_MAX],
        input_schema=schema if len(schema) <= SCHEMA_BYTES_MAX else b'{"type":"object"}',
        output_schema=output if isinstance(output, dict) else None,
        hints={hint: value for hint in HINTS if isinstance(value := annotations.get(hint), bool)},
        headers=b'"x-mcp-header"' in schema,
    )
