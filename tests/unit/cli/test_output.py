"""What is printed cannot control a terminal, and an error says its code, its cause and its cure."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.cli.app import VERBS, execute
from unbroken.cli.exits import Exit, exit_of, report
from unbroken.cli.output import TerminalFilter, clean, coloured, human_bytes, print_table
from unbroken.errors import NotFoundError, error_codes

HOSTILE = st.text(st.sampled_from("\x1b[]()0;31mAhttp\x07\\\x9b\x90P\r\n\t x\x00\x7f\u202e"), max_size=40)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@given(st.lists(HOSTILE, max_size=10))
def test_no_control_character_passes_wherever_the_text_is_cut(pieces: list[str]) -> None:
    text_filter = TerminalFilter()
    shown = "".join(text_filter.feed(piece) for piece in pieces) + text_filter.finish()
    assert CONTROLS.search(shown) is None


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"]), max_size=20), max_size=10))
def test_ordinary_text_passes_unchanged(pieces: list[str]) -> None:
    text_filter = TerminalFilter()
    assert "".join(text_filter.feed(piece) for piece in pieces) + text_filter.finish() == "".join(pieces)


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[31m",
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]8;;http://x\x1b\\",
        "\x1bP1$r\x1b\\",
        "\x1b(B",
        "\x1bc",
        "\x9b1A",
    ],
)
def test_an_escape_sequence_leaves_nothing_behind_however_it_is_split(sequence: str) -> None:
    for cut in range(len(sequence) + 1):
        text_filter = TerminalFilter()
        shown = text_filter.feed("a" + sequence[:cut]) + text_filter.feed(sequence[cut:] + "b") + text_filter.finish()
        assert shown == "ab", cut


def test_a_sequence_that_never_ends_does_not_hide_what_follows_for_ever() -> None:
    text_filter = TerminalFilter()
    shown = text_filter.feed("\x1b]0;") + "".join(text_filter.feed("x" * 1000) for _ in range(10))
    assert "x" * 1000 in shown


def test_a_carriage_return_cannot_overwrite_a_line() -> None:
    assert clean("good\rbad\r\nnext") == "good\nbad\nnext"


def test_a_table_is_aligned_and_cuts_nothing_off(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["NAME", "STATE"], [["x" * 100, "open"], ["y\x1b[2J\nz", "failed"]], colour=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "x" * 100 + "  open"
    assert lines[2] == "y z" + " " * 97 + "  failed"


def test_colours_appear_on_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert coloured("failed") == "failed"
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert coloured("failed") == "\x1b[31mfailed\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("failed") == "failed"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5120.0 GiB")])
def test_bytes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_an_error_for_people_has_its_code_and_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(NotFoundError("no stream \x1b[2Jx"), as_json=False) == Exit.NOT_FOUND
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["error[not_found]: no stream x", f"cure: {NotFoundError.cure}"]


def test_an_error_for_programs_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    report(NotFoundError("no stream x", stream="x"), as_json=True)
    assert msgspec.json.decode(capsys.readouterr().err) == {
        "error": "not_found",
        "message": "no stream x",
        "retryable": False,
        "cure": NotFoundError.cure,
        "detail": {"stream": "x"},
    }


def test_every_error_has_a_cure_and_an_exit_code_other_than_success() -> None:
    for code, kind in error_codes().items():
        error = kind()
        assert error.cure, code
        assert exit_of(error) not in {Exit.OK, Exit.USAGE, Exit.ENDED_BADLY, Exit.INTERRUPTED}, code


@pytest.mark.parametrize(
    "arguments",
    [
        ["tial"],
        ["tail"],
        ["tail", "x", "--bogus"],
        ["ls", "--limit", "many"],
        ["run"],
        ["verify"],
        ["completion", "csh"],
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[usage]: ")
    assert "\ncure: see `unbroken " in err


def test_a_usage_error_for_programs_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["tail", "--json"]) == Exit.USAGE
    assert msgspec.json.decode(capsys.readouterr().err, type=dict[str, object])["error"] == "usage"


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, _, _ in VERBS:
        assert execute([verb, "--help"]) == Exit.OK
        assert f"unbroken {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_knows_the_verbs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["completion", shell]) == Exit.OK
    script = capsys.readouterr().out
    assert all(verb in script for verb, _, _ in VERBS)
