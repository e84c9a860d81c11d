"""Every mutation can still be made: its text is there, once, it is code, and its tests exist."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.mutations import MUTATIONS, main
from tests.support.mutating import ROOT, Mutation, Verdict, copied, tried

SAMPLE = next(mutation for mutation in MUTATIONS if mutation.name == "backoff has no cap")


def test_every_mutation_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_can_still_be_made(mutation: Mutation) -> None:
    assert mutation.occurrences == 1, (
        f"{mutation.file} no longer has this text once; the mutation has to follow the code"
    )
    changed = (ROOT / mutation.file).read_text(encoding="utf-8").replace(mutation.old, mutation.new)
    compile(changed, mutation.file, "exec")
    assert [test for test in mutation.tests if not (ROOT / test).exists()] == []


def test_a_mutation_is_made_in_a_copy_and_taken_back() -> None:
    before = (ROOT / SAMPLE.file).read_bytes()
    with copied() as folder:
        where = [sys.executable, "-c", "import unbroken; print(unbroken.__file__)"]
        environment = {"PYTHONPATH": str(folder / "src")}
        found = subprocess.run(where, env=environment, capture_output=True, text=True, check=True).stdout
        assert found.startswith(str(folder)), "the tests in the copy test the copy"
        verdict, said = tried(folder, SAMPLE)
        assert verdict is Verdict.KILLED, said
        assert (folder / SAMPLE.file).read_bytes() == before
        harmless = Mutation(
            "nothing", SAMPLE.file, SAMPLE.old, SAMPLE.old, ("tests/unit/protocol/test_negotiation.py",)
        )
        assert tried(folder, harmless)[0] is Verdict.SURVIVED
        absent = Mutation("absent", SAMPLE.file, "no such text", "", SAMPLE.tests)
        assert tried(folder, absent)[0] is Verdict.NOT_APPLICABLE
        unrun = Mutation("unrun", SAMPLE.file, SAMPLE.old, SAMPLE.new, ("tests/no_such_test.py",))
        assert tried(folder, unrun)[0] is Verdict.BROKEN
    assert not folder.exists()
    assert (ROOT / SAMPLE.file).read_bytes() == before


def test_an_unknown_name_is_a_mistake() -> None:
    assert main(["no such mutation"]) == 2
