"""The table of verbs, and the one place that turns whatever a verb does into an exit code.

`main` calls `execute`. Verbs are named by import path, so that only the one that is asked for is loaded.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from unbroken import __version__
from unbroken.cli.exits import Exit, UsageError, report, report_usage
from unbroken.errors import UnbrokenError

__all__ = ["VERBS", "build", "execute"]

VERBS: Final = (
    ("serve", "serve:serve", "Run a server until SIGTERM."),
    ("worker", "worker:worker", "Execute runs in a process apart from the server."),
    ("start", "runs:start", "Start a task, an MCP tool or a program on the server."),
    ("retry", "runs:retry", "Run once more what ended badly."),
    ("answer", "runs:answer", "Answer a question that a run has asked."),
    ("tools", "runs:tools", "Show what the server can run."),
    ("mcp", "mcp:mcp", "Be an MCP server for agents, whose work then survives them."),
    ("run", "run:run", "Run a command and keep what it prints as a stream."),
    ("append", "append:append", "Append messages to a stream, one for each line of standard input."),
    ("tail", "tail:tail", "Print a stream's messages, and follow it."),
    ("ls", "streams:ls", "List streams, newest first."),
    ("show", "streams:show", "Show the state of one stream."),
    ("cancel", "streams:cancel", "Ask a stream's producer to stop."),
    ("close", "streams:close", "End a stream."),
    ("delete", "streams:delete", "Delete a stream and its messages."),
    ("token", "tokens:token", "Make, list and revoke tokens in a database."),
    ("share", "tokens:share", "Print a link with which anybody can read a stream."),
    ("erase", "erase:erase", "Destroy what a stream, or all streams of a person, hold."),
    ("download", "download:download", "Save a file that a run has stored."),
    ("verify", "verify:verify", "Recompute hash chains and say where they break."),
    ("keygen", "keygen:keygen", "Make a key that signs checkpoints."),
    ("backup", "backup:backup", "Copy a database while servers use it, and verify the copy."),
    ("restore", "backup:restore", "Put a backup in the place of a database."),
    ("salvage", "salvage:salvage", "Make a new database from what of a damaged one verifies."),
    ("encryption-key", "encryption:encryption_key", "Make a key for encrypting a database."),
    ("rekey", "encryption:rekey", "Change the key of an encrypted database."),
    ("verify-server", "verify_server:verify_server", "Break what a server depends on, and tell what it kept."),
    ("deliver", "deliver:deliver", "Deliver what earlier runs could not."),
    ("doctor", "doctor:doctor", "Check this machine, a store and a server."),
    ("demo", "demo:demo", "Start a demonstration: a server, its page, and streams that survive."),
    ("bench", "bench:bench", "Measure this server beside its yardsticks."),
    ("simulate", "simulate:simulate", "Run server and clients in a simulated world, by seed."),
    ("soak", "soak:soak", "Kill and cut off a real server for as long as you like, and judge it."),
    ("completion", "completion:completion", "Print the completion script for a shell."),
    ("version", "version:version", "Print the version."),
)
HELP: Final = (
    "Streams that survive the reload, the lost network, the crash and the restart.\n\n"
    "Data goes to standard output, everything else to standard error. Every verb has --help."
)


def build(verb: str | None = None) -> App:
    """The command line. Only `verb`, if any, is loaded when its help is asked for; the others show their line above."""
    app = App(
        name="unbroken",
        help=HELP,
        help_format="plaintext",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, path, summary in VERBS:
        if name == verb:
            app.command(f"unbroken.cli.{path}", name=name)
        else:
            app.command(f"unbroken.cli.{path}", name=name, help=summary)
    return app


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Every expected failure is told on stderr with its code and its cure."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in own
    verb = next((word for word in own if not word.startswith("-")), "")
    try:
        result: object = build(verb)(list(arguments), exit_on_error=False, print_error=False)
    except (CycloptsError, UsageError) as error:
        known = any(verb == name for name, _, _ in VERBS)
        cure = f"see `unbroken {verb} --help`" if known else "see `unbroken --help`"
        return report_usage(" ".join(str(error).split()), cure, as_json=as_json)
    except UnbrokenError as error:
        return report(error, as_json=as_json)
    except BaseExceptionGroup as group:
        return _of_group(group, as_json=as_json)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return Exit.OK
    return result if isinstance(result, int) else Exit.OK


def _of_group(group: BaseExceptionGroup[BaseException], *, as_json: bool) -> int:
    """The exit code of failures that a task group has bundled: those of its first expected one."""
    leaves = list(_leaves(group))
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        _drop_stdout()
        return Exit.OK
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return Exit.INTERRUPTED
    expected = [leaf for leaf in leaves if isinstance(leaf, UnbrokenError)]
    if len(expected) < len(leaves):
        raise group
    return report(expected[0], as_json=as_json)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _drop_stdout() -> None:
    """Nobody reads our output any more (`unbroken ls | head`): what is still buffered goes nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
