"""Takes an operator's secrets out of what a server says: results, progress, logs, questions, errors, and its last words.

A process that cannot start often prints the setting it did not like, a proxy the token it refused, and a tool may tell its
whole environment. What is written down stays written down, so it goes out before anything else of ours reads it.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from unbroken.mcp.config import HttpServer, ServerConfig

__all__ = ["Redaction"]

SECRET_CHARACTERS_MIN: Final = 6
"""Shorter values are words like `true`, which would be struck out of every sentence."""
LEARNED_MAX: Final = 64
"""Secrets that were learned on the way, like renewed tokens: the newest are remembered."""
SECRET_NAME: Final = re.compile(r"key(?!board|word)|token(?!s|iz)|secret|passw|auth(?!ors?\b)", re.IGNORECASE)
"""What an argument is called whose value is in confidence."""
ASSIGNED: Final = re.compile(r"(-{0,2}[\w.-]+)(?:=|:(?!//)\s*)(.+)", re.DOTALL)
"""An argument with its name: `--name=value`, `NAME=value`, `Name: value`."""
HIDDEN: Final = "[hidden]"
EXACT: Final = frozenset({"required", "enum", "const"})


class Redaction:
    """Knows what one server was given in confidence: its environment, headers, what its URL holds besides the host, and
    arguments that are called keys, tokens, secrets or passwords.

    A secret is found as it is, and as JSON, URLs and base64 write it.
    """

    def __init__(self, config: ServerConfig) -> None:
        shown = tuple(_shown(config))
        given = {value for value in _given(config) if not any(value in text for text in shown)}
        self._given = frozenset(filter(_long_enough, given))
        self._learned: deque[str] = deque(maxlen=LEARNED_MAX)
        self._forms = _forms_of(self._given)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Hide the values of these headers too."""
        for value in _of_headers(headers):
            if _long_enough(value) and value not in self._given and value not in self._learned:
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
        if numbers and isinstance(value, int | float) and self._known(value):
            return HIDDEN
        return value

    def _known(self, number: float) -> bool:
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


def _long_enough(value: str) -> bool:
    return len(value) >= SECRET_CHARACTERS_MIN


def _given(config: ServerConfig) -> Iterable[str]:
    reach = config.reach
    yield from config.secrets
    if not isinstance(reach, HttpServer):
        yield from reach.env.values()
        for name, value in _arguments(reach.args):
            if SECRET_NAME.search(name):
                yield from _of_headers({name: value})
        for arg in reach.args:
            yield from _of_url(arg)
        return
    yield from _of_headers(reach.headers)
    parts = urlsplit(reach.url)
    yield parts.username or ""
    yield parts.password or ""
    yield parts.query
    yield from (value for _, value in parse_qsl(parts.query))


def _arguments(args: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The arguments that have a name, in front of them or with them; `--header "Name: value"` has two."""
    flag = ""
    for arg in args:
        if flag and not arg.startswith("--"):
            yield flag, arg
        flag = arg if arg.startswith("-") else ""
        text = arg
        while (assigned := ASSIGNED.fullmatch(text)) is not None:
            yield assigned[1], assigned[2]
            flag, text = "", assigned[2]


def _of_url(arg: str) -> Iterable[str]:
    """What an argument that is a URL, as of a database, holds in confidence."""
    try:
        parts = urlsplit(arg.partition("=")[2] if arg.startswith("-") else arg)
    except ValueError:
        return
    if parts.netloc:
        yield unquote(parts.password or "")
        yield parts.password or ""
        yield from (value for name, value in parse_qsl(parts.query) if SECRET_NAME.search(name))


def _shown(config: ServerConfig) -> Iterable[str]:
    """Values that the operator calls public."""
    reach = config.reach
    given = reach.headers.items() if isinstance(reach, HttpServer) else (*reach.env.items(), *_arguments(reach.args))
    return (value for name, value in given if name in config.options.public)


def _of_headers(headers: Mapping[str, str]) -> Iterable[str]:
    for value in headers.values():
        yield value
        scheme, *words = value.split() or [""]  # the first word of several is a scheme
        yield from words
        if scheme.lower() == "basic" and words:
            yield from _basic(words[0])


def _basic(word: str) -> Iterable[str]:
    """The user and the password that the word holds."""
    try:
        text = base64.b64decode(word, validate=True).decode()
    except ValueError:
        return
    yield text
    yield text.partition(":")[2]


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
