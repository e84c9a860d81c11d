"""The log: what a failure leaves there, and what it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAILURE = """
import logging
from unbroken.cli.logs import configure

def work(password: str) -> None:
    token = password.upper()
    raise ValueError(len(token))

configure("info", {form!r})
try:
    work("".join(["pla", "nted"]))
except ValueError:
    logging.getLogger("work").warning("it failed", exc_info=True)
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failure_is_logged_with_its_place_and_without_its_variables(form: str) -> None:
    code = FAILURE.replace("{form!r}", repr(form))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "it failed" in done.stderr
    assert "in work" in done.stderr
    assert "ValueError: 7" in done.stderr
    assert "planted" not in done.stderr.lower()
