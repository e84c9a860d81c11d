"""What comes from elsewhere is named exactly: actions by their commit, packages by their digests, all of it in one bill."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tests.scan.answers import ONCE, unanswered
from tests.support.sbom import bill_of_materials

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_named_by_its_commit(path: Path) -> None:
    uses = re.findall(r"uses: (.*)$", path.read_text(), re.MULTILINE)
    assert uses
    assert [one for one in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_more_and_leaves_no_credentials(path: Path) -> None:
    text = path.read_text()
    assert "permissions:\n  contents: read\n" in text
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")
    assert "pull_request_target" not in text


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_package_is_locked_by_its_digests(path: Path) -> None:
    lines = path.read_text().splitlines()
    pins = [number for number, line in enumerate(lines) if re.match(r"[A-Za-z0-9._-]+", line)]
    assert len(pins) > 10
    assert [
        lines[number] for number in pins if "==" not in lines[number] or "--hash=sha256:" not in lines[number + 1]
    ] == []


def test_the_bill_names_every_vendored_file_by_what_it_is() -> None:
    vendored = ROOT / "src" / "unbroken" / "web" / "vendor"
    named = {
        component["properties"][0]["value"]: component["hashes"][0]["content"]
        for component in bill_of_materials()["components"]
        if component["purl"].startswith("pkg:npm/")
    }
    files = [path for path in vendored.iterdir() if path.suffix in {".js", ".mjs"}]
    assert named == {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_finding_without_an_answer_is_wrong_and_so_is_an_answer_to_nothing() -> None:
    known = [{"test_id": name, "filename": path, "line_number": 1, "issue_text": ""} for name, path in ONCE]
    assert unanswered(known) == []
    new = {"test_id": "B602", "filename": "src/a.py", "line_number": 7, "issue_text": "a shell"}
    assert unanswered([*known, new]) == ["src/a.py:7: B602 a shell"]
    assert len(unanswered(known[1:])) == 1
