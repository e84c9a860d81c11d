"""Owns how bytes become what a target takes, for fuzzers that know nothing but bytes.

`under_atheris` feeds targets by it, and `python -m tests.fuzz --input FILE` shows again what that has found. Targets need
no line of their own: what a strategy makes tells how, and where that has no simple form, bytes are the strategy's choices.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.database import InMemoryExampleDatabase

from tests.fuzz.parsers import Target
from tests.fuzz.regressions import REGRESSIONS
from tests.fuzz.running import in_time
from tests.fuzz.shapes import AWKWARD

__all__ = ["BYTES_MAX", "Way", "again", "feed", "seeds", "way_of", "words"]

EXAMPLES: Final = 200
EXAMPLES_OF_A_KIND: Final = 20
BYTES_MAX: Final = 16_384
"""Above the limits that targets lower for fuzzing; what is larger is the strategies' affair."""
CHOICES_BYTES: Final = (64, 256, 1_024)
WORD_BYTES_MAX: Final = 32
SEPARATOR: Final = b"\x1e"


class Way(StrEnum):
    BYTES = "bytes"
    TEXT = "text"
    PIECES = "bytes with separators"
    TEXTS = "text with separators"
    HEADERS = "name:value, with separators"
    CHOICES = "choices"


def way_of(target: Target) -> Way:
    """How it is fed."""
    ways = {_way(example) for example in _examples(target, 0, EXAMPLES_OF_A_KIND) if example not in ([], {})}
    return ways.pop() if len(ways) == 1 else Way.CHOICES


def feed(target: Target) -> Callable[[bytes], None]:
    """Try one input. Raises what the target raises; bytes that make nothing that it takes are passed over."""
    way = way_of(target)
    return _choices(target, None) if way is Way.CHOICES else lambda data: target.attempt(_read(way, data))


def seeds(target: Target, number: int, *, count: int = EXAMPLES) -> list[bytes]:
    """What a fuzzer begins with: what was found once and `count` examples of the strategy, or choices made by chance."""
    way = way_of(target)
    if way is Way.CHOICES:
        chance = Random(number)
        return [chance.randbytes(CHOICES_BYTES[at % len(CHOICES_BYTES)]) for at in range(count)]
    return [_write(way, one) for one in (*REGRESSIONS.get(target.name, ()), *_examples(target, number, count))]


def words() -> str:
    """What parsers stumble at, as a dictionary of libFuzzer; what is long is in the examples."""
    return "".join(
        '"' + "".join(f"\\x{byte:02x}" for byte in piece) + '"\n' for piece in AWKWARD if len(piece) <= WORD_BYTES_MAX
    )


def again(target: Target, data: bytes) -> None:
    """Try what a fuzzer has found. Raises what it raises, with the input; of choices, with the smallest that does."""
    way = way_of(target)
    if way is Way.CHOICES:
        _choices(target, InMemoryExampleDatabase())(data)
        return
    given = _read(way, data)
    try:
        with in_time():
            target.attempt(given)
    except Exception as error:
        error.add_note(f"the input: {given!r}")
        raise


def _way(example: object) -> Way:
    match example:
        case bytes():
            return Way.BYTES
        case str():
            return Way.TEXT
        case list() if all(isinstance(one, bytes) for one in example):
            return Way.PIECES
        case list() if all(isinstance(one, str) for one in example):
            return Way.TEXTS
        case dict() if all(isinstance(one, str) for one in (*example, *example.values())):
            return Way.HEADERS
        case _:
            return Way.CHOICES


def _read(way: Way, data: bytes) -> Any:
    if way is Way.BYTES:
        return data
    if way is Way.PIECES:
        return data.split(SEPARATOR)
    text = data.decode(errors="replace")
    if way is Way.TEXT:
        return text
    texts = text.split(SEPARATOR.decode())
    return texts if way is Way.TEXTS else dict(one.partition(":")[::2] for one in texts)


def _write(way: Way, given: Any) -> bytes:
    """What is read as `given`, or nearly."""
    if way is Way.BYTES:
        return bytes(given)
    if way is Way.PIECES:
        return SEPARATOR.join(given)
    texts = [given] if way is Way.TEXT else given if way is Way.TEXTS else [f"{name}:{given[name]}" for name in given]
    return SEPARATOR.join(text.encode() for text in texts)


def _examples(target: Target, number: int, count: int) -> list[Any]:
    made: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def collect(given: Any) -> None:
        made.append(given)

    collect()
    return made


def _choices(target: Target, database: InMemoryExampleDatabase | None) -> Callable[[bytes], None]:
    """With a database, what fails is shrunk before it is raised, and what takes too long ends the process."""

    @settings(
        database=database,
        deadline=None,
        phases=[Phase.reuse, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def attempt(given: Any) -> None:
        if database is None:
            target.attempt(given)
        else:
            with in_time():
                target.attempt(given)

    once: Callable[[bytes], bytes | None] = getattr(attempt, "hypothesis").fuzz_one_input  # noqa: B009 - it has no type

    def tried(data: bytes) -> None:
        try:
            once(data)
        except Exception:
            if database is not None:
                attempt()
            raise

    return tried
