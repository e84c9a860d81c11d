"""Whether an answer fits its question: JSON held against the question's JSON Schema, in bounded time.

The desk asks before it stores an answer. A schema can come from a foreign MCP server, so it is weighed before it is used;
nothing is ever fetched for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from unbroken.errors import InvalidError
from unbroken.limits import Limits
from unbroken.messages import check_depth
from unbroken.runs.spec import RunType

__all__ = ["check_answer", "refusal"]

PATTERN_BYTES: Final = 1024 * 1024
"""How large a compiled pattern may become."""
PATTERN_WEIGHT: Final = 200
TEXT_WEIGHT: Final = 64
"""So many characters of a text weigh as much as one value."""
REASON_CHARACTERS: Final = 500
DYNAMIC: Final = frozenset({"$dynamicRef", "$recursiveRef"})


class _Question(msgspec.Struct, frozen=True):
    schema: object = None


def check_answer(kind: RunType, question: msgspec.Raw, response: msgspec.Raw, limits: Limits) -> None:
    """Raise `InvalidError`, with field and reason, for a response that the question's schema does not allow.

    A schema that is invalid, has a number that cannot be held, refers to itself or to another document, has a pattern that
    needs backtracking, or is too much work (`run_schema_values_max`, `run_schema_steps_max`) allows everything. A question of
    a tool may always be declined. The schema is read as JSON Schema 2020-12, formats included, whatever it calls itself. It
    may block for a moment: call it in a thread.
    """
    check_depth(bytes(response), limits)
    try:
        answer: object = msgspec.json.decode(response)
    except msgspec.DecodeError:
        raise InvalidError("the answer has a number that cannot be held", field="response") from None
    try:
        schema = msgspec.json.decode(question, type=_Question).schema
    except msgspec.DecodeError:
        return
    if not isinstance(schema, dict) or (kind == "tool" and refusal(answer) is not None):
        return
    try:
        weight = _Scale(schema, limits).weigh(schema, 0)
    except _TooMuchError:
        return
    if weight * len(response) <= limits.run_schema_steps_max:
        _hold(schema, answer)


def refusal(answer: object) -> str | None:
    """How it refuses a tool's question: `decline` (null and false too) or `cancel`; None for an answer."""
    if answer is None or answer is False:
        return "decline"
    action = answer["action"] if isinstance(answer, Mapping) and set(answer) == {"action"} else None
    return action if isinstance(action, str) and action in {"decline", "cancel"} else None


def _hold(schema: dict[str, object], answer: object) -> None:
    import jsonschema_rs as rules  # noqa: PLC0415 - large, and needed by few processes

    try:
        validator = rules.Draft202012Validator(
            schema,
            validate_formats=True,
            offline=True,
            mask="this",
            pattern_options=rules.RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES),
        )
    except (ValueError, rules.ReferencingError):
        return
    error = next(iter(validator.iter_errors(answer)), None)
    if error is None:
        return
    place = [str(part) for part in error.instance_path]
    if isinstance(error.kind, rules.ValidationErrorKind.Required):
        place.append(str(error.kind.property))
        reason = "is required"
    else:
        reason = error.message[:REASON_CHARACTERS]
    field = ".".join(place)
    raise InvalidError(f"{field or 'the answer'}: {reason}", field=f"response.{field}" if field else "response")


class _TooMuchError(Exception):
    """Nobody can say that the schema is applied in bounded time."""


class _Scale:
    """Weighs a schema: how many values it has when every reference is replaced by what it refers to."""

    def __init__(self, root: dict[str, object], limits: Limits) -> None:
        self._root = root
        self._limits = limits
        self._known: dict[str, tuple[int, int]] = {}
        """Of each reference, the weight and the depth below it."""
        self._open: set[str] = set()
        self._deepest = 0

    def weigh(self, value: object, depth: int) -> int:
        """The weight of `value`; `_TooMuchError` when it is too heavy, too deep, or cannot be known."""
        self._reach(depth)
        if isinstance(value, dict):
            return self._sum(1, (self._member(name, part, depth) for name, part in value.items()))
        if isinstance(value, list):
            return self._sum(1, (self.weigh(part, depth + 1) for part in value))
        return 1 + (len(value) // TEXT_WEIGHT if isinstance(value, str) else 0)

    def _reach(self, depth: int) -> None:
        if depth > self._limits.json_depth_max:
            raise _TooMuchError
        self._deepest = max(self._deepest, depth)

    def _sum(self, total: int, parts: Iterable[int]) -> int:
        for part in parts:
            total += part
            if total > self._limits.run_schema_values_max:
                raise _TooMuchError
        return total

    def _member(self, name: str, part: object, depth: int) -> int:
        own = 1 + len(name) // TEXT_WEIGHT
        if isinstance(part, str):
            if name in DYNAMIC or (name == "$id" and depth > 0):
                raise _TooMuchError
            if name == "$ref":
                return own + self._referred(part, depth)
            if name == "pattern":
                return own + PATTERN_WEIGHT + len(part)
        if name == "patternProperties" and isinstance(part, dict):
            own += PATTERN_WEIGHT * len(part) + sum(map(len, part))
        return own + self.weigh(part, depth + 1)

    def _referred(self, reference: str, depth: int) -> int:
        if reference in self._open:
            raise _TooMuchError
        if reference not in self._known:
            before, self._deepest = self._deepest, depth
            self._open.add(reference)
            weight = self.weigh(self._find(reference), depth + 1)
            self._open.discard(reference)
            self._known[reference] = weight, self._deepest - depth
            self._deepest = max(before, self._deepest)
        weight, below = self._known[reference]
        self._reach(depth + below)
        return weight

    def _find(self, reference: str) -> object:
        """The part of this document at a JSON pointer."""
        if not reference.startswith("#/"):
            raise _TooMuchError
        found: object = self._root
        for step in unquote(reference[2:]).split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isascii() and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise _TooMuchError
        return found
