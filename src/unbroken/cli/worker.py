"""The verb worker: executes runs in a process apart from the server, on the same store.

The worker itself is `unbroken.server.run.work`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from unbroken.cli.serve import DEFAULT_CONFIDENCE, DEFAULT_LOGGING, Confidence, Logging, settings_of

__all__ = ["Work", "worker"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What to execute, and where it is kept."""

    store: Annotated[str | None, Parameter(help="sqlite:///FILE, the server's own [sqlite:///unbroken.db].")] = None
    durability: Annotated[Literal["disk", "process"] | None, Parameter(help="As for the server [disk].")] = None
    tasks: Annotated[
        tuple[str, ...], Parameter(negative="", help="A module with tasks: package.module, or package.module:name.")
    ] = ()
    programs: Annotated[Path | None, Parameter(help="A JSON file with the programs that can be run by name.")] = None
    mcp_config: Annotated[Path | None, Parameter(help="A JSON file with mcpServers, like .mcp.json.")] = None


DEFAULT_WORK: Final = Work()


def worker(
    *, work: Work = DEFAULT_WORK, confidence: Confidence = DEFAULT_CONFIDENCE, logging: Logging = DEFAULT_LOGGING
) -> int:
    """Execute runs until SIGTERM or Ctrl-C, apart from the server, which is started with --no-worker.

    When it is ready it prints one line: unbroken worker ready. Runs that can go on are given back when it stops; the others
    end as interrupted.
    """
    from unbroken.cli.logs import configure
    from unbroken.server.run import work as work_until_stopped

    settings = settings_of({**asdict(work), **asdict(confidence), **asdict(logging)})
    configure(settings.log_level, settings.log_format, [settings.secret or ""])
    return work_until_stopped(settings)
