"""What the documents refer to is there: files, headings, tests, and the paths of the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.blocks import ROOT, blocks, prose

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "tests/*/README.md")
    for path in ROOT.glob(pattern)
)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    text = prose(document.relative_to(ROOT).as_posix())
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(text)}


def test_the_documents_are_there() -> None:
    assert {"README.md", "ARCHITECTURE.md", "PROTOCOL.md", "CHANGELOG.md", "docs/howto/embed.md"} <= set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    broken = []
    for _, target in _LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        path = (ROOT / document).parent / file if file else ROOT / document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_every_guarantee_names_a_test_that_exists() -> None:
    rows = [row for row in prose("README.md").splitlines() if row.startswith("|") and "](tests/" in row]
    assert len(rows) >= 10
    for row in rows:
        name, target = _LINK.findall(row)[-1]
        assert re.search(rf"^(async )?def {name}\(", (ROOT / target).read_text(encoding="utf-8"), re.MULTILINE), name


def test_every_decision_and_howto_is_listed() -> None:
    decisions = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    assert [path.name for path in ROOT.glob("docs/adr/0*.md") if path.name not in decisions] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = [*ROOT.glob("docs/howto/*.md"), *ROOT.glob("docs/reference/*.md")]
    assert [path.name for path in listed if path.relative_to(ROOT).as_posix() not in readme] == []


def test_the_architecture_names_modules_that_exist() -> None:
    table = [row.split("|")[1] for row in prose("ARCHITECTURE.md").splitlines() if re.match(r"\| `[\w./]+", row)]
    names = [name for cell in table for name in re.findall(r"`([\w/]+(?:\.py|/))`", cell)]
    assert len(names) > 10
    assert [name for name in names if not (ROOT / "src" / "unbroken" / name).exists()] == []


def test_the_architecture_shows_the_layers_that_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    enforced = [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    (shown,) = (block.text for block in blocks("ARCHITECTURE.md") if block.text.startswith("cli"))
    drawn = [set(re.findall(r"\w+", line)) for line in shown.splitlines()]
    not_drawn = {"__main__", "demo", "bench", "testing"}
    assert drawn == [layer - not_drawn for layer in enforced if layer - not_drawn]
