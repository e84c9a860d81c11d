"""Takes an operator's secrets out of what a server says about its own failure.

A process that cannot start often prints the setting it did not like, and a proxy the token it refused. Results are not
touched: they are what the tool was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from unbroken.mcp.config import HttpServer, ServerConfig

__all__ = ["Redaction"]

SECRET_CHARACTERS_MIN: Final = 6
"""Shorter values are words like `true`, which would be struck out of every sentence."""
HIDDEN: Final = "[hidden]"


class Redaction:
    """Knows what one server was given in confidence: its environment, headers, and what its URL holds besides the host."""

    def __init__(self, config: ServerConfig) -> None:
        secrets = {value for value in _given(config) if len(value) >= SECRET_CHARACTERS_MIN}
        ordered = sorted(secrets, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """`text` without them."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)


def _given(config: ServerConfig) -> Iterable[str]:
    reach = config.reach
    yield from config.secrets
    if not isinstance(reach, HttpServer):
        yield from reach.env.values()
        return
    for value in reach.headers.values():
        yield value
        yield from value.split()[1:]  # the first word of several is a scheme
    parts = urlsplit(reach.url)
    yield parts.username or ""
    yield parts.password or ""
    yield parts.query
    yield from (value for _, value in parse_qsl(parts.query))
