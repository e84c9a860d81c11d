"""Takes secrets out of messages, metadata and reasons before they are encoded, hashed, stored or seen.

An operator names what is looked for (`--redact`), an application also gives a function of its own. `Streams` calls it once
for each message; nothing here opens anything but a file of rules, and what was taken out is not kept anywhere.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET

from unbroken.errors import ConfigurationError, InvalidError
from unbroken.messages import NewMessage
from unbroken.redaction.known import HIDDEN, Known, long_enough
from unbroken.redaction.shapes import CREDENTIALS, PAIR_NAME, PAIRS, Shape, hide

__all__ = ["Hook", "Redactor", "Rules", "load_rules"]

Hook = Callable[[NewMessage], NewMessage]
"""An application's own redaction: gets a message, gives the one to store. What it raises goes to the producer."""
RULES_BYTES_MAX: Final = 1024 * 1024
RULES_MAX: Final = 1_000
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_KEY_ENDS: Final = re.compile(r"\s*:")
_TO_VALUE: Final = re.compile(r"\s*:\s*")
_MARK: Final = re.compile(r"[][{}]|-?[0-9][0-9.eE+-]*")
"""A bracket or a number."""
_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z.+-])-?[0-9]{6,64}(?![0-9A-Za-z.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is looked for: shapes, the operator's own `patterns`, `literals` in every form, values whose name says it."""

    shapes: tuple[Shape, ...] = ()
    patterns: tuple[Shape, ...] = ()
    literals: tuple[str, ...] = ()
    pairs: bool = False


def load_rules(names: Iterable[str]) -> Rules:
    """The rules that these names stand for: `secrets`, `pairs`, or a TOML file with `literals` and `patterns`.

    `ConfigurationError` names the file or the pattern that cannot be used.
    """
    rules = Rules()
    for name in names:
        if name == "secrets":
            more = Rules(shapes=CREDENTIALS)
        elif name == "pairs":
            more = Rules(shapes=PAIRS, pairs=True)
        else:
            more = _from_file(Path(name))
        rules = Rules(
            shapes=rules.shapes + more.shapes,
            patterns=rules.patterns + more.patterns,
            literals=rules.literals + more.literals,
            pairs=rules.pairs or more.pairs,
        )
    return rules


def _from_file(path: Path) -> Rules:
    try:
        data = path.read_bytes()
        if len(data) > RULES_BYTES_MAX:
            raise _wrong(f"{path} has more than {RULES_BYTES_MAX} bytes")
        table = msgspec.convert(tomllib.loads(data.decode()), _File)
    except OSError as error:
        raise _wrong(
            f"{path} cannot be read ({error.strerror}); the names of built-in rules are secrets and pairs"
        ) from None
    except (ValueError, msgspec.ValidationError) as error:
        raise _wrong(f"{path}: {error}") from None
    if len(table.literals) + len(table.patterns) > RULES_MAX:
        raise _wrong(f"{path} has more than {RULES_MAX} rules")
    if not all(map(long_enough, table.literals)):
        raise _wrong(f"{path}: a literal has at least six characters")
    return Rules(literals=tuple(table.literals), patterns=tuple(_own(path, *item) for item in table.patterns.items()))


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    literals: list[str] = []
    patterns: dict[str, str] = {}


def _own(path: Path, name: str, text: str) -> Shape:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise _wrong(f"{path}: the pattern {name!r} is no regular expression: {error}") from None
    if pattern.search("") is not None:
        raise _wrong(f"{path}: the pattern {name!r} matches what is empty")
    return Shape(name[:64], ("",), pattern, HIDDEN)


def _wrong(text: str) -> ConfigurationError:
    return ConfigurationError(text, setting="redact")


class Redactor:
    """Takes out what `rules` say, then what `hook` takes out; `found` is told the rule and the number of what was.

    Each message is looked at by itself: a secret that a producer cuts into several is not found. JSON stays JSON, and
    what is around a secret stays as it was written; numbers only where one is a literal, or in the value of a named pair.
    Bytes are looked at where they are text. The time it takes is bounded by the size of a message and the rules; for a
    pattern of the operator's own they answer themselves.
    """

    def __init__(self, rules: Rules, *, hook: Hook | None = None) -> None:
        self._shapes = (*rules.shapes, *rules.patterns)
        self._known = Known(rules.literals) if rules.literals else None
        self._digits = frozenset(literal for literal in rules.literals if literal.isdecimal())
        self._pairs = rules.pairs
        self._each_string = bool(rules.patterns)
        """Whether a pattern may mean where a string begins or ends: JSON is then looked at string by string."""
        self._hook = hook
        self.found: Callable[[str, int], None] = lambda _rule, _count: None

    def message(self, message: NewMessage) -> NewMessage:
        """`message` without secrets; the same one where it has none. Raises what the hook raises."""
        cleaned = self._cleaned(message)
        if self._hook is not None:
            by_hook = self._hook(cleaned)
            if by_hook is not cleaned:
                self.found("hook", 1)
            return by_hook
        return cleaned

    def _cleaned(self, message: NewMessage) -> NewMessage:
        if message.text is not UNSET:
            text = self.text(message.text)
            return message if text == message.text else msgspec.structs.replace(message, text=text)
        if message.json is not UNSET:
            raw = bytes(message.json)
            try:
                given = raw.decode()
            except UnicodeDecodeError:
                raise InvalidError("a json payload is not UTF-8", field="json") from None
            written = self.json(given)
            return message if written == given else msgspec.structs.replace(message, json=msgspec.Raw(written.encode()))
        if message.data is not UNSET:
            try:
                given = message.data.decode()
            except UnicodeDecodeError:
                return message
            text = self.text(given)
            return message if text == given else msgspec.structs.replace(message, data=text.encode())
        return message

    def text(self, text: str) -> str:
        """`text` without secrets."""
        if self._known is not None:
            cleaned = self._known(text)
            if cleaned != text:
                self.found("literal", 1)
                text = cleaned
        return hide(text, self._shapes, self.found)

    def json(self, text: str) -> str:
        """JSON without secrets, in its strings, their names, and what they name."""
        if "\\" not in text and not self._each_string and not self._digits and not (self._pairs and '"' in text):
            found, self.found = self.found, lambda _rule, _count: None  # it is counted when it is taken out
            try:
                if self.text(text) == text:
                    return text
            finally:
                self.found = found
        return "".join(self._pieces(text))

    def _pieces(self, text: str) -> Iterable[str]:
        """`text` in pieces: what is between strings, and strings."""
        place, named, depth = 0, False, 0
        for match in _STRING.finditer(text):
            between = text[place : match.start()]
            is_value_of_name = named and _TO_VALUE.fullmatch(between) is not None
            if named or depth:
                between, depth = self._in_confidence(between, depth)
            yield _NUMBER.sub(self._number, between) if self._digits else between
            place = match.end()
            try:
                value = json.loads(match[0], strict=False)
            except ValueError:
                raise InvalidError("a json payload is not JSON", field="json") from None
            is_name = self._pairs and _KEY_ENDS.match(text, place) is not None
            named = is_name and PAIR_NAME.fullmatch(value) is not None
            in_confidence = value and (is_value_of_name or (depth > 0 and not is_name))
            cleaned = HIDDEN if in_confidence else self.text(value)
            if in_confidence:
                self.found("pair", 1)
            yield match[0] if cleaned == value else json.dumps(cleaned)
        rest = text[place:]
        if named or depth:
            rest, _ = self._in_confidence(rest, depth)
        yield _NUMBER.sub(self._number, rest) if self._digits else rest

    def _in_confidence(self, text: str, depth: int) -> tuple[str, int]:
        """What is between two strings, behind a telling name or `depth` brackets deep in its value; how deep it is then.

        Without the numbers of that value.
        """
        parts, place = [], 0
        for match in _MARK.finditer(text):
            mark = match[0]
            if mark in "[{":
                depth += 1
            elif mark in "]}":
                depth -= 1
            else:
                self.found("pair", 1)
                parts += [text[place : match.start()], f'"{HIDDEN}"']
                place = match.end()
            if depth <= 0:
                break  # the value is over
        return "".join([*parts, text[place:]]), max(depth, 0)

    def _number(self, match: re.Match[str]) -> str:
        if match[0].lstrip("-") not in self._digits:
            return match[0]
        self.found("literal", 1)
        return f'"{HIDDEN}"'
