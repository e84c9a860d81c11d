"""The reference pages say what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.cli.reference import cli_page, errors_page

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"
CURE = "run: python -m unbroken.cli.reference docs/reference"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNBROKEN_SERVER", "UNBROKEN_TOKEN_FILE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    assert (REFERENCE / "cli.md").read_text(encoding="utf-8") == cli_page(), CURE


def test_the_page_of_the_errors_is_up_to_date() -> None:
    assert (REFERENCE / "errors.md").read_text(encoding="utf-8") == errors_page(), CURE
