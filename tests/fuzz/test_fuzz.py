"""Every parser, for a moment: what is nearly right gives a value or an error of ours, and never anything else."""

from __future__ import annotations

import os
from random import SystemRandom

from tests.fuzz.regressions import REGRESSIONS
from tests.fuzz.running import every_target, fuzz

EXAMPLES = int(os.environ.get("UNBROKEN_FUZZ_EXAMPLES", "12"))


def test_what_was_found_once_is_found_no_more() -> None:
    with every_target() as targets:
        named = {target.name: target for target in targets}
        for name, inputs in REGRESSIONS.items():
            for given in inputs:
                named[name].attempt(given)


def test_no_parser_fails_in_a_way_of_its_own() -> None:
    number = SystemRandom().randrange(2**32)
    with every_target() as targets:
        for target in targets:
            fuzz(target, examples=EXAMPLES, number=number)
