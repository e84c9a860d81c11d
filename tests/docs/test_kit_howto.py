"""The test in docs/howto/fault-kit.md passes as it is, and its tables name what there is."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from tests.docs.blocks import ROOT, blocks
from unbroken.testing import Toxic

pytest_plugins = ["pytester"]

HOWTO = "docs/howto/fault-kit.md"


def test_the_example_is_a_test_that_passes(pytester: pytest.Pytester) -> None:
    (block,) = blocks(HOWTO)
    pytester.makepyfile(block.text)
    pytester.runpytest_subprocess("-W", "error", timeout=100).assert_outcomes(passed=1)


def test_the_tables_name_every_fixture_and_toxic() -> None:
    text = (ROOT / HOWTO).read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    assert {toxic.__name__ for toxic in get_args(Toxic)} <= named
    plugin = (ROOT / "src/unbroken/testing/plugin.py").read_text(encoding="utf-8")
    assert set(re.findall(r"@pytest\.fixture\ndef (\w+)", plugin)) <= named
