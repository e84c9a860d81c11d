"""Takes an operator's secrets out of what a server says: results, progress, logs, questions, errors, and its last words.

A process that cannot start often prints the setting it did not like, a proxy the token it refused, and a tool may tell its
whole environment. What is written down stays written down, so it goes out before anything else of ours reads it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from unbroken.mcp.config import HttpServer, ServerConfig
from unbroken.redaction.known import Known

__all__ = ["Redaction"]

SECRET_NAME: Final = re.compile(r"key(?!board|word)|token(?!s|iz)|secret|passw|auth(?!ors?\b)", re.IGNORECASE)
"""What an argument is called whose value is in confidence."""
ASSIGNED: Final = re.compile(r"(-{0,2}[\w.-]+)(?:=|:(?!//)\s*)(.+)", re.DOTALL)
"""An argument with its name: `--name=value`, `NAME=value`, `Name: value`."""


class Redaction(Known):
    """Knows what one server was given in confidence: its environment, headers, what its URL holds besides the host, and
    arguments that are called keys, tokens, secrets or passwords.
    """

    def __init__(self, config: ServerConfig) -> None:
        shown = tuple(_shown(config))
        super().__init__(value for value in _given(config) if not any(value in text for text in shown))

    def learn_headers(self, headers: Mapping[str, str]) -> None:
        """Hide the values of these headers too."""
        self.learn(_of_headers(headers))


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
