"""What is printed cannot control a terminal, and an error says its code, its cause and its cure."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unbroken.cli.app import VERBS, execute
from unbroken.cli.exits import Exit, exit_of, report
from unbroken.cli.output import TerminalFilter, clean, coloured, human_bytes, json_line, print_table
from unbroken.cli.streams import print_view
from unbroken.errors import NotFoundError, error_codes
from unbroken.protocol.frames import StreamView

HOSTILE = st.text(
    st.sampled_from("\x1b[]()0;31m8Ahttp\x07\\\x9b\x90\x9c\x9dP\r\n\t x\x00\x7f\u202e\u2066\u206b\u200f\u061c"),
    max_size=40,
)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200f\u2028\u2029\u202a-\u202e\u2066-\u206f]")
COLOUR = re.compile(r"\x1b\[(?:0|[1-4]|22|23|24|3[0-79]|9[0-7]|38;5;\d{1,3}|38;2(;\d{1,3}){3}|;)+m")


@given(st.lists(HOSTILE, max_size=10))
def test_no_control_character_passes_wherever_the_text_is_cut(pieces: list[str]) -> None:
    text_filter = TerminalFilter()
    shown = "".join(text_filter.feed(piece) for piece in pieces) + text_filter.finish()
    assert CONTROLS.search(shown) is None


@given(HOSTILE)
def test_what_is_stored_as_json_makes_no_second_line_of_json(text: str) -> None:
    forged = json.dumps({"type": "state", "text": text})
    raw = msgspec.Raw(f'{{"a":\r\n{forged}\r\n}}'.encode())
    line = json_line({"metadata": raw, "reason": raw})
    assert line.splitlines(keepends=True) == [line]
    assert json.loads(line)["metadata"] == json.loads(bytes(raw))


@given(HOSTILE)
def test_what_a_server_says_of_a_stream_controls_no_terminal_and_adds_no_line(text: str) -> None:
    shown, raw = io.StringIO(), msgspec.Raw(f'{{"a":\n{json.dumps(text)}}}'.encode())
    said = dict.fromkeys(("stream", "state", "cursor", "kind", "content_type", "session", "hash", "producer"), text)
    numbers = dict.fromkeys(("epoch", "first", "head", "created", "updated", "bytes"), 1)
    facts = {**said, **numbers, "cancel_requested": True, "cancel_requested_by": text}
    view = msgspec.structs.replace(msgspec.convert(facts, StreamView), metadata=raw, reason=raw)
    with redirect_stdout(shown):
        print_view(view, as_json=False)
    assert CONTROLS.search(shown.getvalue()) is None
    assert len(shown.getvalue().splitlines()) == 14


@example(["\x900\x1b)", "0"])
@given(st.lists(HOSTILE, max_size=10))
def test_where_the_text_is_cut_makes_no_difference(pieces: list[str]) -> None:
    cut, whole = TerminalFilter(), TerminalFilter()
    shown = "".join(cut.feed(piece) for piece in pieces) + cut.finish()
    assert shown == whole.feed("".join(pieces)) + whole.finish()


@given(st.lists(HOSTILE, max_size=10))
def test_with_colours_nothing_but_colours_passes_and_each_piece_ends_without(pieces: list[str]) -> None:
    text_filter = TerminalFilter(colours=True)
    for shown in [*map(text_filter.feed, pieces), text_filter.finish()]:
        assert CONTROLS.search(COLOUR.sub("", shown)) is None
        assert "\x1b" not in shown or shown.endswith("\x1b[0m")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred\x1b[0m plain", "\x1b[31mred\x1b[0m plain\x1b[0m"),
        ("\x1b[8mhidden", "hidden"),
        ("\x1b[7;5;41mback", "back"),
        ("\x1b[1;44;32mx", "\x1b[1;32mx\x1b[0m"),
        ("\x1b[38;5;200mx", "\x1b[38;5;200mx\x1b[0m"),
        ("\x1b[48;2;1;2;3mx", "x"),
        ("\x1b[38;5mx", "x"),
        ("\x1b[38;2;1;2;9999mx", "x"),
        ("\x1b]0;\x1b[31mtitle\x07x", "\x1b[31mtitlex\x1b[0m"),
        ("\x1b[31", ""),
    ],
)
def test_colours_of_letters_stay_where_they_are_wanted(given: str, shown: str) -> None:
    assert TerminalFilter(colours=True).feed(given) == shown


def test_a_colour_lasts_over_pieces() -> None:
    text_filter = TerminalFilter(colours=True)
    assert text_filter.feed("\x1b[3") == ""
    assert text_filter.feed("2mgreen") == "\x1b[32mgreen\x1b[0m"
    assert text_filter.feed(" still") == "\x1b[32m still\x1b[0m"
    assert text_filter.feed("\x1b[m over") == "\x1b[32m\x1b[0m over\x1b[0m"
    assert text_filter.feed(" plain") in {" plain", "\x1b[0m plain\x1b[0m"}


@given(st.recursive(HOSTILE, lambda inner: st.lists(inner) | st.dictionaries(HOSTILE, inner), max_leaves=8))
def test_a_line_of_json_says_the_same_and_controls_nothing(value: object) -> None:
    line = json_line(value)
    assert CONTROLS.search(line) is None
    assert line.count("\n") == 1
    assert msgspec.json.decode(line) == value


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
        "\x1b]52;c;aGk=\x07",
        "\x9d52;c;aGk=\x9c",
        "\x1b]52;c;aGk=\x9c",
        "\x90q#0\x1b\\",
        "\x1b^private\x1b\\",
        "\x1b_application\x07",
        "\x1bXstring\x1b\\",
        "\x1b[?1049h",
        "\x1b[6n",
        "\x1b[>0;1 q",
        "\x1b#8",
        "\x1b[5i",
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
