"""What guided fuzzing is made of works without atheris: how bytes feed targets, what was found shown again, what is said.

As with mutmut, no test of the suite runs atheris itself: `python -m tests.fuzz --guided` does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.__main__ import main
from tests.fuzz.feeding import Way, again, feed, seeds, way_of, words
from tests.fuzz.guided import INSTALL, Told, found, told
from tests.fuzz.parsers import PARSERS, Target
from tests.fuzz.regressions import REGRESSIONS
from tests.fuzz.running import fuzz
from tests.support.mutating import ROOT

SAID = """INFO: Instrumenting unbroken.messages
#2\tINITED cov: 33 ft: 39 corp: 5/1211b exec/s: 0 rss: 103Mb
#1024\tpulse  cov: 33 ft: 39 corp: 5/1211b lim: 512 exec/s: 512 rss: 103Mb
#2301\tNEW    cov: 34 ft: 41 corp: 6/1520b lim: 512 exec/s: 511 rss: 103Mb L: 309/309 MS: 2 ChangeBit-CrossOver-
#22017\tDONE   cov: 34 ft: 41 corp: 6/1520b lim: 533 exec/s: 2001 rss: 279Mb
"""


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("MCP servers", Way.BYTES),
        ("checkpoints", Way.TEXT),
        ("server events", Way.PIECES),
        ("subprotocols", Way.TEXTS),
        ("hosts and origins", Way.HEADERS),
        ("chunks", Way.CHOICES),
    ],
)
def test_a_target_is_fed_as_its_strategy_tells(name: str, way: Way) -> None:
    (target,) = [target for target in PARSERS if target.name == name]
    assert way_of(target) is way
    attempt = feed(target)
    for data in seeds(target, 1, count=3):
        attempt(data)


@pytest.mark.parametrize(
    "inputs",
    [
        st.binary(),
        st.text(),
        st.lists(st.sampled_from([b"", b"a:b", b"\xff"]), min_size=1),
        st.lists(st.sampled_from(["", "a:b", "\u00e4"]), min_size=1),
        st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["", "x:y"]), min_size=1),
    ],
    ids=[way.name for way in Way if way is not Way.CHOICES],
)
def test_what_a_strategy_makes_is_what_its_seeds_feed(inputs: st.SearchStrategy[Any]) -> None:
    fed: list[object] = []
    target = Target("planted", inputs, fed.append)
    begun = seeds(target, 1, count=30)
    attempt = feed(target)
    for data in begun:
        attempt(data)
    again_fed: list[object] = []
    fuzz(Target("planted", inputs, again_fed.append), examples=30, number=1)
    assert fed == again_fed
    assert seeds(target, 1, count=30) == begun, "a number brings the same again"


def test_what_was_found_once_is_where_a_fuzzer_begins() -> None:
    name = "checkpoints"
    (target,) = [target for target in PARSERS if target.name == name]
    assert [one.encode() for one in REGRESSIONS[name]] == seeds(target, 1, count=1)[: len(REGRESSIONS[name])]


def picky(given: object) -> None:
    """Takes no Z, wherever it is."""
    assert "Z" not in str(given)


def test_bytes_that_make_nothing_are_passed_over() -> None:
    tried: list[tuple[bytes, bool]] = []
    attempt = feed(Target("planted", st.tuples(st.binary(max_size=3), st.booleans()), tried.append))
    attempt(b"")
    assert tried == []
    attempt(bytes(range(256)))
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("inputs", "data", "told_of"),
    [
        (st.binary(), b"aZ\xff", r"^the input: b'aZ\\xff'$"),
        (st.text(), b"aZ\xff", "^the input: 'aZ\ufffd'$"),
        (st.lists(st.binary()), b"a\x1eZ", r"^the input: \[b'a', b'Z'\]$"),
        (
            st.tuples(st.sampled_from("abZ"), st.sampled_from("Zab")),
            b"\x02\x01",
            r"given=\('a', 'Z'\)|given=\('Z', 'Z'\)",
        ),
    ],
    ids=["bytes", "text", "pieces", "choices"],
)
def test_what_was_found_is_shown_again_with_its_input(
    inputs: st.SearchStrategy[Any], data: bytes, told_of: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        again(Target("planted", inputs, picky), data)
    notes = "\n".join(caught.value.__notes__)
    assert re.search(told_of, notes, re.MULTILINE), notes


def test_a_file_is_tried_again_by_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "found").write_bytes(b"7:120")
    assert main(["--target", "cursors", "--input", str(tmp_path / "found")]) == 0
    assert capfd.readouterr().out == "nothing wrong with it\n"


@pytest.mark.parametrize("options", [["--target", "no such"], ["--target", "s", "--input", "/dev/null"]])
def test_a_target_must_be_there_and_a_file_is_for_one_alone(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 64
    assert "cursors" in capsys.readouterr().err


def test_without_atheris_it_says_so_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)  # as Python marks what cannot be imported
    assert main(["--guided", "--seconds", "1"]) == 69
    said = capsys.readouterr()
    assert said.err.startswith("guided fuzzing was not run: atheris is not installed: pip install atheris==")
    assert said.out == ""


def test_the_version_of_the_how_to_is_that_of_the_command() -> None:
    assert f".venv/bin/{INSTALL}\n" in (ROOT / "docs/howto/prove.md").read_text(encoding="utf-8")


def test_the_numbers_of_a_run_are_read_from_what_libfuzzer_says() -> None:
    assert told(SAID) == Told(inputs=22_017, places_first=33, places_last=34)
    assert told("ModuleNotFoundError: No module named 'x'") is None


def test_the_input_of_a_defect_is_where_libfuzzer_says() -> None:
    said = "artifact_prefix='/f/found-x/'; Test unit written to /f/found-x/"
    assert found(f"{said}slow-unit-0a\n{said}crash-1b\nBase64: Cg==\n{said}timeout-2c\n") == [
        Path("/f/found-x/crash-1b"),
        Path("/f/found-x/timeout-2c"),
    ]
    assert found(SAID) == []


def test_what_parsers_stumble_at_are_words_of_libfuzzers_dictionary() -> None:
    lines = words().splitlines()
    assert {r'"\x0d\x0a"', r'"\x22"', r'"\x4e\x61\x4e"'} <= set(lines)
    assert [line for line in lines if not re.fullmatch(r'"(?:\\x[0-9a-f]{2}){1,32}"', line)] == []
