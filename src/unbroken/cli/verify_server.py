# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verb verify-server: does to a running server what networks and machines do, and tells what it kept.

The scenarios and the judging are `unbroken.testing.survival`. It leaves nothing behind, and gives its seed to be repeated.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from unbroken.cli.connection import Connection, read_token, run_async
from unbroken.cli.exits import Exit, UsageError
from unbroken.cli.output import check_output, note, print_table

if TYPE_CHECKING:
    from unbroken.testing.survival import Row, Scenario, Scorecard, Wanted

__all__ = ["verify_server"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the server is spoken to, and started."""

    adapter: Annotated[
        str, Parameter(help="What it speaks: unbroken, durable-streams, sse, websocket, or package.module:Class.")
    ] = "unbroken"
    command: Annotated[str, Parameter(help="A program that is the adapter, over JSON lines; instead of --adapter.")] = (
        ""
    )
    start: Annotated[
        str, Parameter(help="The command that starts the server, with {port} and {directory}; allows kill -9.")
    ] = ""
    without: Annotated[
        tuple[str, ...], Parameter(negative="", help="A capability that the server does not claim.")
    ] = ()
    token_file: Annotated[Path | None, Parameter(help="A file with the token; else UNBROKEN_TOKEN is used.")] = None
    ca_file: Annotated[
        Path | None,
        Parameter(help="A file with the certificates to trust, instead of the system's, for https and wss."),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """Where the scorecard goes besides the terminal."""

    json: Annotated[Path | None, Parameter(help="A file for everything, with the histories of what failed.")] = None
    junit: Annotated[Path | None, Parameter(help="A file for CI, as JUnit's XML.")] = None
    html: Annotated[Path | None, Parameter(help="A file for people, as one page without scripts.")] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is run."""

    only: Annotated[tuple[str, ...], Parameter(negative="", help="A scenario by its name or id, instead of all.")] = ()
    seed: Annotated[int | None, Parameter(help="The seed of an earlier run [a new one].")] = None
    seconds: Annotated[float, Parameter(help="How long one scenario may take; a server that needs longer is slow.")] = (
        600.0
    )
    quiet: Annotated[
        float, Parameter(help="Seconds in which nothing is acknowledged or arrives; then the server is stuck.")
    ] = 30.0
    patience: Annotated[float, Parameter(help="As --quiet, once the end is acknowledged.")] = 15.0


DEFAULT_WAY: Final = Way()
DEFAULT_PAPERS: Final = Papers()
DEFAULT_COURSE: Final = Course()


def verify_server(
    url: str = "",
    /,
    *,
    way: Way = DEFAULT_WAY,
    course: Course = DEFAULT_COURSE,
    papers: Papers = DEFAULT_PAPERS,
) -> int:
    """Break what a server depends on, and print what it lost, doubled or swapped.

    Exits with 0 when nothing failed, with 1 when anything did, with 75 when something stayed inconclusive, with 69 when the
    server cannot be reached. Writes into streams of its own, named survival-…, and deletes them.

    Args:
        url: The server's address; may be left out with --start.
    """
    from unbroken.testing.survival import Wanted

    if min(course.seconds, course.quiet, course.patience) <= 0:
        raise UsageError("--seconds, --quiet and --patience are more than 0")
    for name in ("json", "junit", "html"):
        check_output(getattr(papers, name), setting=name)
    wanted = Wanted(
        url=url,
        adapter=way.adapter,
        command=way.command,
        start=way.start,
        without=way.without,
        token=read_token(way.token_file, "UNBROKEN_TOKEN", setting="token_file"),
        ssl=Connection(ca_file=way.ca_file).ssl,
        ca_file=way.ca_file,
    )
    card = run_async(_run(wanted, _chosen(course.only), course))
    _write(card, papers)
    return _told(card)


def _chosen(only: tuple[str, ...]) -> list[Scenario]:
    from unbroken.testing.survival import scenarios

    known = scenarios()
    names = {word for scenario in known for word in (scenario.id, scenario.name)}
    unknown = [word for word in only if word not in names]
    if unknown:
        raise UsageError(f"there is no scenario {unknown[0]}; there are {', '.join(each.name for each in known)}")
    return [each for each in known if not only or each.id in only or each.name in only]


async def _run(wanted: Wanted, chosen: list[Scenario], course: Course) -> Scorecard:
    from unbroken import __version__
    from unbroken.clock import SystemClock
    from unbroken.errors import UnreachableError
    from unbroken.testing.survival import Bounds, Scorecard, loaded, running, survive
    from unbroken.testing.survival.runner import reachable

    random = SystemClock().random
    seed = random.getrandbits(32) if course.seed is None else course.seed
    bounds = Bounds(scenario_seconds=course.seconds, quiet_seconds=course.quiet, patience_seconds=course.patience)
    note(f"seed {seed}")
    async with loaded(wanted) as target, running(target) as server:
        if not await reachable(server):
            raise UnreachableError(f"nobody listens at {server.url}")
        card = Scorecard(server.url, wanted.command or wanted.adapter, seed, __version__)
        label = f"{random.getrandbits(32):08x}"
        card.rows += await survive(server, chosen, seed=seed, label=label, bounds=bounds, on_row=_tell)
    return card


def _tell(row: Row) -> None:
    """Say on stderr how far it is."""
    note(f"{row.scenario.id} {row.scenario.name}: {row.outcome} ({row.delivered} messages, {row.seconds:.1f} s)")


def _told(card: Scorecard) -> int:
    """Print the scorecard; gives the exit code."""
    from unbroken.testing.survival import ASPECTS, Outcome

    rows = [
        [row.scenario.name, *(row.cells[name].outcome for name in ASPECTS), str(row.delivered), str(row.bites)]
        for row in card.rows
    ]
    print_table(["scenario", *ASPECTS, "messages", "bites"], rows)
    for row in card.rows:
        for name, cell in row.cells.items():
            if cell.outcome is Outcome.FAIL:
                note(f"{row.scenario.name}, {name}: {cell.rule}: {cell.evidence}")
        for text in row.notes:
            note(f"{row.scenario.name}: {text}")
    sys.stdout.write(f"{card.outcome}: {card.target}, adapter {card.adapter}, seed {card.seed}\n")
    return {Outcome.FAIL: Exit.FAILED, Outcome.INCONCLUSIVE: Exit.TEMPORARY}.get(card.outcome, Exit.OK)


def _write(card: Scorecard, papers: Papers) -> None:
    from unbroken.testing.survival.reports import as_html, as_json, as_junit

    if papers.json is not None:
        papers.json.write_bytes(as_json(card))
    if papers.junit is not None:
        papers.junit.write_bytes(as_junit(card))
    if papers.html is not None:
        papers.html.write_text(as_html(card), encoding="utf-8")
