"""The manifest and the tests agree, both ways. Marks are read from the source, so a test that is not run counts too."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import CASES, DEFERRED_CEILING

TESTS = Path(__file__).resolve().parent
ID_FORM = re.compile(r"(TC-(UT|INT|E2E|EDGE)|LOAD|STRESS|SEC|INTEG|ENV|MIG|COMPAT|INFRA|OBS|CI)-\d{3}[a-c]?")


def marks_in(source: str, where: str) -> Iterator[tuple[str, str]]:
    """Each (row, place) that a `scenario(...)` mark in `source` names. A mark that names no literal row is an error."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "scenario"):
            continue
        place = f"{where}:{node.lineno}"
        assert node.args, f"{place}: a scenario mark names its row"
        assert not node.keywords, f"{place}: rows are positional"
        for argument in node.args:
            assert isinstance(argument, ast.Constant), f"{place}: rows are written out, not computed"
            assert isinstance(argument.value, str), f"{place}: a row is a string"
            yield argument.value, place


def marks_of_the_suite() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" not in path.parts:
            found += marks_in(path.read_text(encoding="utf-8"), str(path.relative_to(TESTS)))
    return found


def test_every_row_has_a_known_form_and_appears_once() -> None:
    assert [case.id for case in CASES if not ID_FORM.fullmatch(case.id)] == []
    assert [row for row, times in Counter(case.id for case in CASES).items() if times > 1] == []
    assert [case.id for case in CASES if not case.promise] == []


def test_every_active_row_has_a_test() -> None:
    proven = {row for row, _ in marks_of_the_suite()}
    assert [case.id for case in CASES if not case.deferred and case.id not in proven] == []


def test_every_mark_names_a_row_of_the_manifest() -> None:
    known = {case.id for case in CASES}
    assert [f"{place}: {row}" for row, place in marks_of_the_suite() if row not in known] == []


def test_no_deferred_row_has_a_test_already() -> None:
    deferred = {case.id for case in CASES if case.deferred}
    assert [f"{place}: {row} is no longer deferred" for row, place in marks_of_the_suite() if row in deferred] == []


def test_the_number_of_deferred_rows_only_falls() -> None:
    deferred = sum(1 for case in CASES if case.deferred)
    assert deferred <= DEFERRED_CEILING, "a row that was proven must stay proven"
    assert deferred == DEFERRED_CEILING, f"lower DEFERRED_CEILING to {deferred}"


@pytest.mark.parametrize("mark", ["scenario()", "scenario(row)", "scenario('a', id='b')", "scenario(1)"])
def test_a_mark_that_names_no_literal_row_is_refused(mark: str) -> None:
    with pytest.raises(AssertionError):
        list(marks_in(f"@pytest.mark.{mark}\ndef test_it(): ...", "sample"))


def test_marks_are_found_on_functions_classes_modules_and_parameters() -> None:
    sample = """
pytestmark = [pytest.mark.anyio, pytest.mark.scenario("A")]
@pytest.mark.scenario("B", "C")
class TestIt:
    @pytest.mark.scenario("D")
    async def test_it(self): ...
parameters = [pytest.param(1, marks=pytest.mark.scenario("E"))]
"""
    assert sorted(row for row, _ in marks_in(sample, "sample")) == ["A", "B", "C", "D", "E"]
