"""The exit codes of `unbroken` and how an error becomes one, a line for people, or an object for programs.

Every verb's failure passes here, and the reference page is made from this table. It decides nothing about retrying.
"""

from __future__ import annotations

import sys
from enum import IntEnum

from unbroken.cli.output import clean, json_line
from unbroken.errors import UnbrokenError

__all__ = ["Exit", "UsageError", "exit_of", "report", "report_usage"]


class UsageError(Exception):
    """The command line makes no sense, for a reason that the parser cannot know."""


class Exit(IntEnum):
    """What the process tells its caller."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ENDED_BADLY = 3
    TAMPERED = 4
    NOT_FOUND = 5
    BAD_DATA = 65
    UNAVAILABLE = 69
    TEMPORARY = 75
    REFUSED = 77
    CONFIGURATION = 78
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "done; for `tail`: the stream completed",
    Exit.FAILED: "the operation failed; the error's code says why",
    Exit.USAGE: "the command line is wrong",
    Exit.ENDED_BADLY: "`tail`: the stream failed, was cancelled, timed out or was interrupted",
    Exit.TAMPERED: "a stream's hash chain does not hold, or stored data is corrupt; `salvage`: something was lost",
    Exit.NOT_FOUND: "no such stream or session, or it is not yours",
    Exit.BAD_DATA: "the request or its data is malformed or too large",
    Exit.UNAVAILABLE: "something needed is not there: the server does not answer, `doctor` found a fault",
    Exit.TEMPORARY: "temporary: the same command can succeed later",
    Exit.REFUSED: "the server refused the credentials, what they were used for, or the origin",
    Exit.CONFIGURATION: "the configuration is wrong",
    Exit.INTERRUPTED: "ended by Ctrl-C",
}
_BY_CODE = {
    "address": Exit.UNAVAILABLE,
    "not_found": Exit.NOT_FOUND,
    "erased": Exit.NOT_FOUND,
    "unknown_runnable": Exit.NOT_FOUND,
    "invalid": Exit.BAD_DATA,
    "too_large": Exit.BAD_DATA,
    "protocol": Exit.BAD_DATA,
    "unauthorized": Exit.REFUSED,
    "forbidden": Exit.REFUSED,
    "forbidden_origin": Exit.REFUSED,
    "corrupt": Exit.TAMPERED,
    "verification": Exit.TAMPERED,
    "version": Exit.UNAVAILABLE,
    "unreachable": Exit.UNAVAILABLE,
    "configuration": Exit.CONFIGURATION,
}


def exit_of(error: UnbrokenError) -> Exit:
    """The exit code that an error gives."""
    return _BY_CODE.get(error.code, Exit.TEMPORARY if error.retryable else Exit.FAILED)


def report(error: UnbrokenError, *, as_json: bool) -> Exit:
    """Tell of an error on stderr, as an object for programs or with its cure for people; gives the exit code."""
    if as_json:
        fields = {
            "error": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "cure": error.cure,
            "detail": error.detail,
        }
        sys.stderr.write(json_line(fields))
    else:
        sys.stderr.write(f"error[{error.code}]: {clean(error.message)}\n")
        if error.cure:
            sys.stderr.write(f"cure: {clean(error.cure)}\n")
    return exit_of(error)


def report_usage(message: str, cure: str, *, as_json: bool) -> Exit:
    """As `report`, for a command line that cannot be understood."""
    if as_json:
        fields = {"error": "usage", "message": message, "retryable": False, "cure": cure, "detail": {}}
        sys.stderr.write(json_line(fields))
    else:
        sys.stderr.write(f"error[usage]: {clean(message)}\ncure: {clean(cure)}\n")
    return Exit.USAGE
