"""A tool's result on its way into the stream: checked against its schema, and cut into messages when it is large.

The check only annotates; a result is never dropped because it does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import msgspec

from unbroken.errors import UnbrokenError
from unbroken.limits import Limits
from unbroken.mcp.tools import Tool
from unbroken.messages import StreamState, check_depth
from unbroken.runs.context import RunContext, RunEnded

__all__ = ["completed", "fits_schema"]

PART_SHARE = 8
"""A character takes at most six bytes of JSON."""


async def completed(context: RunContext, tool: Tool | None, result: Mapping[str, object]) -> RunEnded:
    """The end of a run with `result`.

    The last message's body is the result as the protocol writes it, with `schema_ok` where the tool has a schema. A large
    one comes before it as `output` messages, whose `text`s in order are its JSON; the body then has `output` with their
    number, the attempt they belong to, and their bytes.
    """
    limits = context.limits
    body = {name: value for name, value in result.items() if name != "resultType"}
    fits = fits_schema(tool, result)
    notes: dict[str, object] = {} if fits is None else {"schema_ok": fits}
    failed = body.get("isError") is True
    encoded = msgspec.json.encode({**body, **notes})
    if len(encoded) > limits.mcp_result_inline_bytes_max or not _shallow(encoded, limits):
        text = msgspec.json.encode(body).decode()
        step = limits.message_bytes_max // PART_SHARE
        parts = [text[start : start + step] for start in range(0, len(text), step)]
        for number, part in enumerate(parts, start=1):
            await context.put("output", {"attempt": context.attempt, "part": number, "of": len(parts), "text": part})
        summary = {"parts": len(parts), "attempt": context.attempt, "bytes": len(text.encode())}
        body = {"isError": failed, "output": summary}
    return RunEnded(StreamState.COMPLETED, {**body, **notes}, reason={"isError": True} if failed else {})


def _shallow(encoded: bytes, limits: Limits) -> bool:
    try:
        check_depth(encoded, limits)
    except UnbrokenError:
        return False
    return True


def fits_schema(tool: Tool | None, result: Mapping[str, object]) -> bool | None:
    """Whether the structured content is what the tool promised; None when there is no promise, or none that is safe to check.

    A schema's patterns are regular expressions of a stranger, and are not run.
    """
    if tool is None or tool.output_schema is None or result.get("isError") is True:
        return None
    if "structuredContent" not in result:
        return False
    if b'"pattern' in msgspec.json.encode(tool.output_schema):
        return None
    # a part of the extra, imported when it is needed
    jsonschema, referencing = import_module("jsonschema"), import_module("referencing")
    kind = jsonschema.validators.validator_for(tool.output_schema)
    validator = kind(tool.output_schema, registry=referencing.Registry())
    try:
        return bool(validator.is_valid(result["structuredContent"]))
    except Exception:  # noqa: BLE001 - the schema is a stranger's, and a check that fails says nothing of the result
        return None
