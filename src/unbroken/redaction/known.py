"""Secrets that are known by their value, found in text as they are and as JSON, URLs and base64 write them.

The calls of MCP servers use it for what an operator gave to one of them, the log for what was given to the server, and
redaction for literals. It opens nothing and writes nothing.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

__all__ = ["HIDDEN", "Known", "long_enough"]

SECRET_CHARACTERS_MIN: Final = 6
"""Shorter values are words like `true`, which would be struck out of every sentence."""
LEARNED_MAX: Final = 64
"""Secrets that were learned on the way, like renewed tokens: the newest are remembered."""
HIDDEN: Final = "[hidden]"
EXACT: Final = frozenset({"required", "enum", "const"})


class Known:
    """Knows `secrets`; those that are shorter than six characters are none."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._given = frozenset(filter(long_enough, secrets))
        self._learned: deque[str] = deque(maxlen=LEARNED_MAX)
        self._forms = _forms_of(self._given)

    def learn(self, values: Iterable[str]) -> None:
        """Hide these too; the newest are remembered."""
        for value in values:
            if long_enough(value) and value not in self._given and value not in self._learned:
                self._learned.append(value)
        self._forms = _forms_of({*self._given, *self._learned})

    def __call__(self, text: str) -> str:
        """`text` without them."""
        for form, instead in self._forms:
            if form in text:
                text = text.replace(form, instead)
        return text

    def value(self, value: object, *, numbers: bool = False) -> object:
        """A JSON value without them, its keys included; with `numbers` also without numbers that are a secret of digits."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {self(str(name)): self.value(item, numbers=numbers) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, numbers=numbers) for item in value]
        if numbers and isinstance(value, int | float) and self._is_known(value):
            return HIDDEN
        return value

    def _is_known(self, number: float) -> bool:
        """Whether a whole number, as it is written, is a secret; `True` is none."""
        if isinstance(number, float):
            if not number.is_integer():
                return False
            number = int(number)
        written = repr(abs(number))
        return written in self._given or written in self._learned

    def schema(self, value: object) -> object:
        """A JSON Schema whose texts are without them; its names and choices stay: they must be met exactly."""
        if isinstance(value, Mapping):
            return {name: item if name in EXACT else self.schema(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.schema(item) for item in value]
        return self(value) if isinstance(value, str) else value

    def unfinished(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a secret that goes on in the next text."""
        longest = 0
        for form, _ in self._forms:
            for size in range(min(len(form) - 1, len(text)), longest, -1):
                if text.endswith(form[:size]):
                    longest = size
                    break
        return longest


def long_enough(value: str) -> bool:
    """Whether `value` is taken for a secret."""
    return len(value) >= SECRET_CHARACTERS_MIN


def _forms_of(secrets: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """How the secrets may be written, and what stands there instead; the longest first."""
    forms = {form: instead for secret in secrets for form, instead in _written(secret)}
    return tuple(sorted(forms.items(), key=lambda item: len(item[0]), reverse=True))


def _written(secret: str) -> Iterable[tuple[str, str]]:
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield form, HIDDEN
    for form in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield form, HIDDEN
    data = secret.encode(errors="replace")
    for before in range(3):  # three bytes are four characters: a secret inside of more has one of three forms
        whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        inner = whole[-(-8 * before // 6) : 8 * (before + len(data)) // 6]
        for form in (inner, inner.translate(str.maketrans("+/", "-_"))):
            yield form, "A" * len(form)  # still base64
