"""The reference says what the code does, and leaves nothing out."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.docs.generate import ROOT, pages, with_states
from tests.docs.limits import MEANING
from unbroken.errors import error_codes
from unbroken.limits import Limits
from unbroken.observe.metrics import Metrics
from unbroken.settings import Settings

CURE = "run: python -m tests.docs.generate"


def reference(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def test_every_limit_is_explained_and_nothing_else() -> None:
    assert MEANING.keys() == {field.name for field in fields(Limits)}, "tests/docs/limits.py says what each bounds"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_the_page_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], CURE


def test_the_table_of_states_is_up_to_date() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert text == with_states(text), CURE


def test_every_setting_limit_metric_and_error_is_documented() -> None:
    settings, limits, metrics, errors = map(reference, ("settings.md", "limits.md", "metrics.md", "errors.md"))
    assert [name for name in Settings.model_fields if f"`UNBROKEN_{name.upper()}`" not in settings] == []
    assert [field.name for field in fields(Limits) if f"`{field.name}`" not in limits] == []
    assert [one.name for one in Metrics().registry.collect() if f"`{one.name}" not in metrics] == []
    assert [code for code in error_codes() if f"| `{code}` |" not in errors] == []


def test_codes_that_documents_name_exist() -> None:
    known = set(error_codes())
    text = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
    problems = re.findall(r"problem document `(\w+)`|gives `(\w+)`|refused with `(\w+)`|\b4\d\d `(\w+)`", text)
    named = {code for found in problems for code in found if code}
    assert {"epoch_mismatch", "trimmed", "fenced"} <= named
    assert named - known == set()
