"""A scorecard written down: as JSON, as JUnit's XML, and as one static page without scripts.

The command and CI use them. They add nothing to what the scorecard says, and escape everything that a server could have
said.
"""

from __future__ import annotations

import re
from html import escape
from xml.etree import ElementTree

import msgspec

from unbroken.testing.survival.scorecard import ASPECTS, Cell, Outcome, Row, Scorecard

__all__ = ["as_html", "as_json", "as_junit"]

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
"""What XML cannot say at all."""
STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid #8884; vertical-align: top; }
.pass { color: #1a7f37; } .fail { color: #cf222e; font-weight: 600; } .inconclusive { color: #9a6700; }
.not-claimed, .not-run { color: #8888; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { .pass { color: #3fb950; } .fail { color: #ff7b72; } .inconclusive { color: #d29922; } }
"""


def as_json(card: Scorecard) -> bytes:
    """Everything, with the histories of what failed."""
    document = {
        "target": card.target,
        "adapter": card.adapter,
        "seed": card.seed,
        "version": card.version,
        "outcome": card.outcome,
        "rows": [_row(row) for row in card.rows],
    }
    return msgspec.json.format(msgspec.json.encode(document))


def _row(row: Row) -> dict[str, object]:
    return {
        "id": row.scenario.id,
        "name": row.scenario.name,
        "title": row.scenario.title,
        "outcome": row.outcome,
        "cells": row.cells,
        "acknowledged": row.acknowledged,
        "delivered": row.delivered,
        "bites": row.bites,
        "seconds": round(row.seconds, 3),
        "notes": row.notes,
        "history": [msgspec.Raw(line) for line in row.history],
    }


def as_junit(card: Scorecard) -> bytes:
    """A test case for each cell, so that CI shows which promise broke under which fault."""
    cells = [(row, name, cell) for row in card.rows for name, cell in row.cells.items()]

    def count(*outcomes: Outcome) -> str:
        return str(sum(cell.outcome in outcomes for _, _, cell in cells))

    suite = ElementTree.Element(
        "testsuite",
        name="unbroken verify-server",
        tests=str(len(cells)),
        failures=count(Outcome.FAIL),
        errors=count(Outcome.INCONCLUSIVE),
        skipped=count(Outcome.NOT_CLAIMED, Outcome.NOT_RUN),
        time=f"{sum(row.seconds for row in card.rows):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("seed", str(card.seed)), ("target", card.target), ("adapter", card.adapter)):
        ElementTree.SubElement(properties, "property", name=name, value=_fit(value))
    for row, name, cell in cells:
        _case(suite, row, name, cell)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text


def _case(suite: ElementTree.Element, row: Row, name: str, cell: Cell) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=f"{row.scenario.id} {row.scenario.name}", name=name)
    said = _fit(f"{cell.rule}: {cell.evidence}" if cell.rule else "; ".join(row.notes))
    match cell.outcome:
        case Outcome.PASS:
            return
        case Outcome.FAIL:
            ElementTree.SubElement(case, "failure", message=said)
        case Outcome.INCONCLUSIVE:
            ElementTree.SubElement(case, "error", message=said or "inconclusive")
        case Outcome.NOT_CLAIMED | Outcome.NOT_RUN:
            ElementTree.SubElement(case, "skipped", message=said or cell.outcome)


def as_html(card: Scorecard) -> str:
    """One page that needs nothing else and runs nothing."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("scenario", *ASPECTS, "messages", "bites"))
    body = "".join(_html_row(row) for row in card.rows)
    failures = "".join(
        f"<li>{escape(row.scenario.id)} {escape(row.scenario.name)}, {escape(name)}: "
        f"<code>{escape(cell.rule)}: {escape(cell.evidence)}</code></li>"
        for row in card.rows
        for name, cell in row.cells.items()
        if cell.outcome is Outcome.FAIL
    )
    notes = "".join(
        f"<li>{escape(row.scenario.id)} {escape(row.scenario.name)}: {escape(note)}</li>"
        for row in card.rows
        for note in row.notes
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width"><title>Survival scorecard</title>'
        f"<style>{STYLE}</style></head><body><h1>Survival scorecard: "
        f'<span class="{_css(card.outcome)}">{escape(card.outcome)}</span></h1>'
        f"<p>{escape(card.target)} by the adapter <code>{escape(card.adapter)}</code>, seed {card.seed}, "
        f"kit {escape(card.version)}.</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{_section('What failed', failures)}{_section('Notes', notes)}</body></html>\n"
    )


def _html_row(row: Row) -> str:
    cells = "".join(
        f'<td class="{_css(row.cells[name].outcome)}">{escape(row.cells[name].outcome)}</td>' for name in ASPECTS
    )
    title = f"{escape(row.scenario.id)} {escape(row.scenario.name)}<br><small>{escape(row.scenario.title)}</small>"
    return f"<tr><td>{title}</td>{cells}<td>{row.delivered}</td><td>{row.bites}</td></tr>"


def _section(title: str, items: str) -> str:
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _css(outcome: Outcome) -> str:
    return outcome.value.replace(" ", "-")


def _fit(text: str) -> str:
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)
