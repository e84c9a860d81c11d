"""Secrets that can be told by their shape: tokens with a prefix, private keys, URLs with a password, named values.

Messages are searched for them where the operator says so, and every line of the log. Each search looks for a mark first and
takes time in proportion to the text; what has no shape of its own can only be found by its value (`known`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from unbroken.redaction.known import HIDDEN

__all__ = ["CREDENTIALS", "LOGGED", "PAIRS", "PAIR_NAME", "Shape", "hide"]


class Shape(NamedTuple):
    """What a kind of secret looks like: only text that holds one of `marks` is searched (the empty one is in all).

    `instead` is put in its place, as a template of `re`.
    """

    name: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    instead: str = HIDDEN


def _shape(name: str, marks: str, pattern: str, instead: str = HIDDEN) -> Shape:
    return Shape(name, tuple(marks.split("|")), re.compile(pattern, re.ASCII), instead)


_WORD: Final = r"(?<![A-Za-z0-9_-])"
"""Where a token may begin."""

CREDENTIALS: Final = (
    _shape("unbroken", "ubk_|ubl_", _WORD + r"ub[kl]_[A-Za-z0-9_-]{8,}"),
    _shape(
        "private_key",
        "PRIVATE KEY",
        r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[\s\S]*?-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----|[\s\S]*)",
    ),
    _shape(
        "authorization",
        "uthorization|UTHORIZATION",
        r"""(?i:(authorization["']?\s{0,4}[:=]\s{0,4}["']?(?:(?:bearer|basic|digest|token|apikey) {1,4})?)[^\s"',;]{3,})""",
        r"\1" + HIDDEN,
    ),
    _shape("bearer", "earer |EARER ", r"(?i:(\bbearer {1,4}))[A-Za-z0-9._~+/-]{20,}={0,2}", r"\1" + HIDDEN),
    _shape("jwt", "eyJ", _WORD + r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,3}"),
    _shape("sk", "sk-", _WORD + r"sk-[A-Za-z0-9_-]{16,}"),
    _shape("stripe", "k_live_|k_test_", _WORD + r"[rsp]k_(?:live|test)_[A-Za-z0-9]{10,}"),
    _shape(
        "github",
        "ghp_|gho_|ghu_|ghs_|ghr_|github_pat_",
        _WORD + r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    ),
    _shape("gitlab", "glpat-", _WORD + r"glpat-[A-Za-z0-9_-]{16,}"),
    _shape("aws", "AKIA|ASIA", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _shape("google", "AIza|ya29.", _WORD + r"(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,})"),
    _shape("slack", "xox|xapp-", _WORD + r"(?:xox[a-z]|xapp)-[A-Za-z0-9-]{10,}"),
    _shape("huggingface", "hf_", _WORD + r"hf_[A-Za-z0-9]{30,}"),
    _shape("npm", "npm_", _WORD + r"npm_[A-Za-z0-9]{30,}"),
    _shape("pypi", "pypi-", _WORD + r"pypi-[A-Za-z0-9_-]{40,}"),
    _shape(
        "url",
        "://",
        r"""(://)(?:[^\s/?#:"'<>]{0,256}:[^\s/?#"'<>]{1,256}|[^\s/?#:@"'<>]{20,256})@""",
        r"\1" + HIDDEN + "@",
    ),
)
"""Credentials by their shape."""

_NAMES: Final = (
    r"(?:[A-Za-z0-9_.-]{0,32}(?:passw(?:or)?d|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|client[_-]?secret"
    r"|auth[_-]?token|access[_-]?token|refresh[_-]?token|credentials?))"
)
PAIR_NAME: Final = re.compile(rf"(?i:{_NAMES})", re.ASCII)
"""The name of a member of a JSON object whose value is in confidence."""
PAIRS: Final = (
    _shape(
        "pair",
        "assw|ASSW|assphrase|ASSPHRASE|ecret|ECRET|key|Key|KEY|oken|OKEN|redential|REDENTIAL",
        rf"""(?i:(?<![A-Za-z0-9_.-])({_NAMES}["']?\s{{0,4}}[=:]\s{{0,4}}))(?:"[^"\n]{{1,512}}"|'[^'\n]{{1,512}}'|[^\s"',;&]{{1,512}})""",
        r"\1" + HIDDEN,
    ),
)
"""Values with a name like password, in text: `password=…`, `api_key: …`."""

LOGGED: Final = (
    *CREDENTIALS,
    _shape(
        "header",
        ":",
        r"(?i:\b((?:proxy-authorization|cookie|set-cookie|x-api-key|sec-websocket-protocol|sec-websocket-key)"
        r"""["']?\s{0,4}:)[^\r\n]*)""",
        r"\1 " + HIDDEN,
    ),
    _shape("ticket", "ticket.", r"\b(ticket\.)[A-Za-z0-9_-]{8,}", r"\1" + HIDDEN),
    _shape("query", "?", r"""(?<=[A-Za-z0-9/_.~%-])\?[^\s"'<>?]{1,4096}=[^\s"'<>]*""", "?" + HIDDEN),
    *PAIRS,
)
"""What no line of a log may hold: credentials, and where some may be that have no shape."""


def hide(text: str, shapes: Sequence[Shape], found: Callable[[str, int], None] | None = None) -> str:
    """`text` without what has one of these shapes; `found` is told which, and how often."""
    for name, marks, pattern, instead in shapes:
        for mark in marks:  # a loop, for this is the cost of a text that holds nothing
            if mark in text:
                text, count = pattern.subn(instead, text)
                if count and found is not None:
                    found(name, count)
                break
    return text
