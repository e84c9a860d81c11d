"""Every mutation can still be made: its text is there, once, it is code, and its tests exist."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, main
from tests.support.mutating import ROOT, Mutation, Outcome, Verdict, copied, tried
from tests.support.mutation_record import Record
from tests.support.provision_node import Node

NOTICES = (
    "tests/unit/client/test_reconnect.py"
    "::test_refused_connections_wait_twice_as_long_each_up_to_the_cap_and_take_no_real_time"
)
SAMPLE = replace(next(mutation for mutation in MUTATIONS if mutation.name == "backoff has no cap"), tests=(NOTICES,))


def test_every_mutation_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_can_still_be_made(mutation: Mutation, tmp_path: Path, node: Node) -> None:
    assert mutation.occurrences == 1, (
        f"{mutation.file} no longer has this text once; the mutation has to follow the code"
    )
    changed = (ROOT / mutation.file).read_text(encoding="utf-8").replace(mutation.old, mutation.new)
    if mutation.file.endswith(".js"):
        script = tmp_path / "changed.mjs"
        script.write_text(changed, encoding="utf-8")
        subprocess.run([node.path, "--check", script], check=True)
    else:
        compile(changed, mutation.file, "exec")
    assert [test for test in mutation.tests if not _exists(test)] == []


def _exists(test: str) -> bool:
    """Whether there is such a file or folder, and the test in it that is named."""
    path, _, function = test.partition("::")
    return (ROOT / path).exists() and (not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"))


def test_a_mutation_is_made_in_a_copy_and_taken_back() -> None:
    before = (ROOT / SAMPLE.file).read_bytes()
    with copied() as folder:
        where = [sys.executable, "-c", "import unbroken; print(unbroken.__file__)"]
        environment = {"PYTHONPATH": str(folder / "src")}
        found = subprocess.run(where, env=environment, capture_output=True, text=True, check=True).stdout
        assert found.startswith(str(folder)), "the tests in the copy test the copy"
        outcome = tried(folder, SAMPLE)
        assert (outcome.verdict, outcome.by) == (Verdict.KILLED, NOTICES), outcome
        assert (folder / SAMPLE.file).read_bytes() == before
        assert tried(folder, replace(SAMPLE, new=SAMPLE.old)).verdict is Verdict.SURVIVED
        assert tried(folder, replace(SAMPLE, old="no such text")).verdict is Verdict.NOT_APPLICABLE
        assert tried(folder, replace(SAMPLE, tests=("tests/no_such_test.py",))).verdict is Verdict.BROKEN
    assert not folder.exists()
    assert (ROOT / SAMPLE.file).read_bytes() == before


def test_what_fails_without_the_mutation_too_has_noticed_nothing(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("one = 1\n", encoding="utf-8")
    (tmp_path / "test_broken.py").write_text("def test_broken() -> None:\n    assert False\n", encoding="utf-8")
    outcome = tried(tmp_path, Mutation("two", "code.py", "1", "2", ("test_broken.py",)))
    assert (outcome.verdict, outcome.by) == (Verdict.BROKEN, "test_broken.py::test_broken")


def test_a_copy_whose_process_was_killed_is_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    left, alive, foreign = (
        tmp_path / f"unbroken-mutation-{owner}-x" for owner in (dead.stdout.strip(), os.getpid(), "someone")
    )
    for folder in (left, alive, foreign):
        folder.mkdir()
    with copied() as copy:
        assert copy.name.startswith(f"unbroken-mutation-{os.getpid()}-")
    assert sorted(tmp_path.iterdir()) == sorted([alive, foreign])


def test_a_run_goes_on_where_it_was_interrupted_in_the_same_tree_only(tmp_path: Path) -> None:
    tree, file = tmp_path / "tree", tmp_path / "record"
    (tree / "src").mkdir(parents=True)
    code, outcome = tree / "src/code.py", Outcome(Verdict.KILLED, "test", "why")
    code.write_text("one", encoding="utf-8")
    survivor = MUTATIONS[0]
    record = Record(file, tree)
    record.add(SAMPLE, outcome)
    record.add(survivor, Outcome(Verdict.SURVIVED, "", ""))
    again = Record(file, tree)
    assert again.killed(SAMPLE) == outcome
    assert again.noticed(replace(SAMPLE, tests=("te",))) == "test", "it is tried first"
    assert again.noticed(SAMPLE) == "", "but only where it is one of the tests that have to notice"
    assert again.killed(survivor) is None, "what was not killed is tried again"
    assert again.killed(replace(SAMPLE, new="pass")) is None, "another mistake"
    code.write_text("two", encoding="utf-8")
    assert Record(file, tree).killed(SAMPLE) is None, "another tree"


def test_an_unknown_name_is_a_mistake() -> None:
    assert main(["no such mutation"]) == 2
