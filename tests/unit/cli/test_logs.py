"""The log: what a failure leaves there, and what it does not."""

from __future__ import annotations

import json
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


def logged(form: str, statement: str) -> str:
    """What `statement` writes to the log, which knows one secret by its value."""
    code = f"""
import logging, warnings
from unbroken.cli.logs import configure
configure("debug", {form!r}, ["planted" + "-known"])
log = logging.getLogger("work")
secret, known = "sk-" + "planted0" * 4, "planted" + "-known"
{statement}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stderr


LEAKS = [
    "log.info('Authorization: Bearer %s', secret)",
    "log.info('it is %s', known)",
    "log.info('it is', extra={'facts': {'a': [known, secret]}, 'password': 'planted0', 'n': 1})",
    "log.info('headers %r', {'authorization': 'Basic planted00'})",
    "log.info('GET %s', '/v1/messages/a?ticket=planted0')",
    "logging.getLogger('websockets.server').debug('> Cookie: a=planted0')",
    "logging.getLogger('websockets.server').debug('> Sec-WebSocket-Protocol: unbroken.v1, ticket.planted0')",
    "logging.getLogger('uvicorn.error').info('\"WebSocket %s\" 403', '/v1/ws?token=planted0')",
    "log.info('broken %d', secret)",
    "warnings.warn('it is ' + secret)",
    "try:\n    raise ValueError(secret)\nexcept ValueError:\n    log.exception('failed')",
    "log.info('x' * 16_380 + secret)",
    "log.info('it is', extra={'at': {'token': 'planted0'}})",
]


@pytest.mark.scenario("SEC-002")
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_in_a_line_of_the_log(form: str) -> None:
    output = logged(form, "\n".join(LEAKS))
    assert "planted" not in output
    assert output.count("[hidden]") >= len(LEAKS)
    assert "could not be written" in output


def test_a_text_cannot_pretend_to_be_a_line_nor_move_the_cursor() -> None:
    hostile = "a\\r\\n2026-01-01 [info] forged\\x1b[2J\\x9b1m\\u202eevil\\u2028next\\ud800"
    output = logged(
        "text",
        f"log.info('name %s', '{hostile}', extra={{'stream': '{hostile}'}})\n"
        f"try:\n    raise ValueError('{hostile}')\nexcept ValueError:\n    log.exception('failed')",
    )
    assert not any(line.startswith("2026-01-01 [info] forged") for line in output.splitlines())
    begins = [line[:2] for line in output.splitlines() if "forged" in line]
    assert begins == ["20", "  "], "the entry itself, and the end of its traceback"
    assert set("\x1b\x9b\u202e\u2028\r").isdisjoint(output)
    assert output.count("\\x1b[2J") == 3


def test_json_lines_stay_lines() -> None:
    output = logged("json", "log.info('a\\nb\\x1b', extra={'stream': 'c\\u2028d'})")
    (line,) = output.split("\n")[:-1]
    entry = json.loads(line)
    assert (entry["event"], entry["stream"]) == ("a\nb\x1b", "c\u2028d")
    assert line.isascii()
