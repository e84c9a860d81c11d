"""Owns what fuzzing feeds to parsers: bytes and JSON that are nearly right, since what is nothing at all is refused at once.

The targets use it. It knows no parser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

__all__ = ["AWKWARD", "JSON", "json_near", "near", "pieces", "text_near"]

AWKWARD: Final = (
    *(
        b"\x00",
        b"\xff",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\r\n",
        b"\n\n",
        b"\r",
        b" ",
        b"\t",
        b'"',
        b"\\",
        b"\\ud800",
        b"%",
        b"%00",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b";",
        b"=",
        b"/",
        b"//",
        b"..",
        b"-",
        b"+",
        b".",
        b"e",
        b"0",
        b"-0",
        b"1e999",
        b"NaN",
    ),
    *(
        b"9007199254740993",
        b"18446744073709551616",
        b"-1",
        b"0x10",
        b"null",
        b"true",
        "\u202e".encode(),
        "\u0661".encode(),
    ),
    *(b"[" * 2_000, b'{"a":' * 1_500, b"9" * 5_000, b"x" * 70_000, b"a," * 3_000, b" " * 9_000),
)
"""Pieces at which parsers stumble: ends, escapes, numbers at bounds, depth, length."""

_NUMBERS: Final = st.sampled_from(
    [0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**400, 0.5, 1e308, 5e-324, -0.0]
)
_TEXTS: Final = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "a", "1:1", "start", "now", "last:3", "../..", "\x00", "\u202e", "a/b", "a" * 5_000, "0" * 40, "-1"]
    ),
)
JSON: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, st.integers(), _TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)
"""Any JSON value."""


@st.composite
def near(draw: st.DrawFn, *samples: bytes) -> bytes:
    """One of `samples` with some bytes of it changed, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(start + draw(st.sampled_from([0, 0, 1, 1, 2, 4, 16, 1_000])), len(data))
        data[start:end] = draw(
            st.one_of(st.sampled_from(AWKWARD), st.binary(max_size=4), st.just(bytes(data[start:end]) * 2))
        )
    return bytes(data)


def text_near(*samples: str) -> st.SearchStrategy[str]:
    """As `near`, for text."""
    return near(*[sample.encode() for sample in samples]).map(lambda data: data.decode(errors="replace")) | _TEXTS


@st.composite
def json_near(draw: st.DrawFn, *samples: object) -> bytes:
    """One of `samples` as JSON, with some values and keys of it replaced; now and then its text is changed too."""
    value = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 3))):
        value = draw(_changed(value))
    encoded = json.dumps(value).encode()
    return encoded if draw(st.integers(0, 3)) else draw(near(encoded))


@st.composite
def _changed(draw: st.DrawFn, value: object) -> object:
    """`value` with one thing in it changed."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        change = draw(st.sampled_from(["inside", "inside", "inside", "without", "more", "renamed"]))
        rest = {name: found for name, found in value.items() if name != key}
        if change == "inside":
            return {**value, key: draw(_changed(value[key]))}
        if change == "without":
            return rest
        return {**(value if change == "more" else rest), draw(_TEXTS): draw(JSON)}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(_changed(value[place])), *value[place + draw(st.integers(0, 1)) :]]
    return draw(JSON)


@st.composite
def pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> Sequence[bytes]:
    """Bytes in pieces, cut anywhere."""
    data = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
