"""The run of mutmut is about modules and tests that exist, and its results are read right."""

from __future__ import annotations

import tomllib
from collections import Counter

import pytest

from tests.every_mutation import MODULES, configuration, main, summary
from tests.support.mutating import ROOT


@pytest.mark.parametrize("module", MODULES)
def test_the_module_and_its_tests_exist(module: str) -> None:
    assert (ROOT / f"src/unbroken/{module}.py").is_file()
    assert [test for test in MODULES[module] if not (ROOT / test).exists()] == []


def test_the_configuration_is_added_to_the_projects_own() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + configuration(["store/decide"])
    table = tomllib.loads(text)["tool"]["mutmut"]
    assert table["only_mutate"] == ["src/unbroken/store/decide.py"]
    assert table["pytest_add_cli_args_test_selection"] == list(MODULES["store/decide"])


def test_results_are_counted_by_module() -> None:
    said = """
    unbroken.store.decide.x_append__mutmut_1: survived
    unbroken.store.decide.x_append__mutmut_2: killed
    unbroken.protocol.backoff.xǁBackoffǁfailure__mutmut_9: no tests
"""
    assert summary(said) == [
        ("protocol.backoff", Counter({"no tests": 1})),
        ("store.decide", Counter({"survived": 1, "killed": 1})),
    ]


def test_an_unknown_module_is_a_mistake() -> None:
    assert main(["no/such/module"]) == 2
