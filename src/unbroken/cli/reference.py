"""Makes the pages docs/reference/cli.md and docs/reference/errors.md from the code that they describe.

A test holds the pages against it; `python -m unbroken.cli.reference DIRECTORY` writes them. Nothing else imports it.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from cyclopts.help import PlainFormatter
from rich.console import Console

from unbroken.cli.app import VERBS, build
from unbroken.cli.exits import Exit, exit_of
from unbroken.errors import error_codes

__all__ = ["cli_page", "errors_page"]

WIDTH = 126
CONVENTIONS = """\
* Data goes to standard output, everything else (notes, progress, logs, errors) to standard error.
* `--json` writes one JSON object a line, for programs. Its fields are stable: fields may be added, none change or go.
  A stream is shown as in PROTOCOL.md 1.3; `tail` writes `{"type": "message", …}` for each message and
  `{"type": "state", …}` last. An error is an object too, on standard error.
* An error reads `error[CODE]: what happened` and `cure: what to do`; the codes are in [errors.md](errors.md).
* The server is named by `--server` or `UNBROKEN_SERVER`; the token by `UNBROKEN_TOKEN` or a file, never by an argument.
* No verb asks anything. `NO_COLOR` is honoured, and colours appear on terminals only.
* Nothing that is stored can control the terminal: it is removed from text and escaped in JSON. `tail --raw` writes the bytes.
* Shell completion: `unbroken completion bash`, `zsh` or `fish` prints the script.
"""
RUN = """\
The command keeps its standard input, and its output appears unchanged. It becomes messages of the kinds `stdout` and
`stderr`, in the order in which it was read: texts where it is UTF-8, else data; at most 32 KiB and about 50 ms old. The
stream ends as `completed` when the exit code is 0, else as `failed`, with `{"exit_code": n}` or `{"signal": "SIGTERM"}`; as
`cancelled` after a cancel, with who asked for it as `by`; as `timed_out` with `{"limit": "idle", "seconds": n}` or
`"total"`. To stop it, SIGTERM goes to the command's process group, and SIGKILL `--grace` seconds later to what is left of it.
`unbroken run` ends when the command has, and nobody holds its outputs open any more. A background process that was
left behind with them is waited for, as a pipeline in a shell waits: what it prints is output too, and a closed pipe would
kill it. A note says so `--grace` seconds after the command's end. SIGINT or SIGTERM leaves it alone; `--idle-timeout` and
`--total-timeout` stop it, and the end stays the command's own.

With `--key` the command is started once: the stream is claimed at the server first, which must be there then, and a repeated
`unbroken run` with the same key shows the run that exists until its end, with its exit code. One that the system would not
execute is such a run too, `failed` with `{"error": "not started"}`. To use the key again, `unbroken delete` its stream.

Signals (INT, TERM, HUP, QUIT, USR1, USR2, WINCH, CONT) are passed on to the command's process group. Ctrl-C in a terminal
reaches the command once.

The command never waits for the server. What the server does not take at once waits in memory, then in
`$XDG_STATE_HOME/unbroken/spill` (by default `~/.local/state/unbroken/spill`), up to `--spill-max`. Beyond that the newest
output is not kept, and a message of kind `gap` with `{"dropped_bytes": n}` says so in its place. What is still not
delivered at the end, after `--wait` seconds, stays in its file; `unbroken deliver` brings it to the server, and so does
the next `unbroken run`. Each message arrives once, however often that is tried. Where the stream has ended meanwhile
(because its lease ran out), the rest goes to a stream `NAME.2` whose metadata says `{"continues": NAME}`.

Exit codes of `run` are the command's own: its exit code, 128 + n after signal n, 127 when there is no such command, 126
when it cannot be executed.
"""


def cli_page() -> str:
    """The reference of the command line."""
    parts = ["# The command line", _generated(), CONVENTIONS, "## Exit codes", _table(_exits()), "## `unbroken`"]
    parts.append(_help([]))
    for name, _, _ in VERBS:
        parts += [f"## `unbroken {name}`", _help([name])]
        if name == "run":
            parts.append(RUN)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def errors_page() -> str:
    """The reference of the error codes."""
    rows = [["code", "HTTP", "retryable", "exit code", "meaning", "cure"], ["---"] * 6]
    for code, kind in sorted(error_codes().items()):
        meaning = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        if code == "internal":
            meaning = "A defect in Unbroken."
        retry = "yes" if kind.retryable else "no"
        rows.append([f"`{code}`", str(kind.http_status), retry, str(int(exit_of(kind()))), meaning, kind.cure])
    text = (
        "Every error has a stable code, on every face: HTTP (as a problem document), WebSocket (as an `error` frame), the "
        "Python client (as an exception) and the command line. `retryable` says whether the very same request can "
        "succeed later."
    )
    return "\n\n".join(["# Errors", _generated(), text, _table(rows)]) + "\n"


def _generated() -> str:
    return "<!-- Made by `python -m unbroken.cli.reference docs/reference`; a test compares. Do not edit. -->"


def _exits() -> list[list[str]]:
    return [["code", "meaning"], ["---", "---"], *([str(int(code)), code.meaning] for code in Exit)]


def _table(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _help(tokens: list[str]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    app = build(tokens[0] if tokens else None)
    app.help_formatter = PlainFormatter()
    app.help_print(tokens, console=console)
    lines = [line.rstrip() for line in out.getvalue().strip("\n").splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def main(directory: Path) -> None:
    """Write both pages."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cli.md").write_text(cli_page(), encoding="utf-8")
    (directory / "errors.md").write_text(errors_page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
