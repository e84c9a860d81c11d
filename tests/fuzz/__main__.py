"""Owns the long form of fuzzing, `python -m tests.fuzz --seconds 3600`: round after round, each with a seed of its own.

A person or a nightly job calls it. It ends with the first defect, told with its input and how to see it again. With
`--guided` atheris looks for inputs that reach new places of our code, in each target for its share of the time.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.feeding import again
from tests.fuzz.guided import guided, missing
from tests.fuzz.parsers import Target
from tests.fuzz.running import every_target, fuzz

ROUND_EXAMPLES = 500
MISTAKE = 64
UNAVAILABLE = 69


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the time was over, 1 with a defect, 64 when no target has that name, 69 when atheris is not there."""
    given = _parser().parse_args(arguments)
    if given.guided and (reason := missing()):
        print(reason, file=sys.stderr)
        return UNAVAILABLE
    with every_target() as targets:
        chosen = [target for target in targets if given.target in target.name]
        if not chosen or (given.input is not None and len(chosen) != 1):
            print(f"there are the targets {', '.join(target.name for target in targets)}", file=sys.stderr)
            return MISTAKE
        if given.input is not None:
            again(chosen[0], given.input.read_bytes())
            print("nothing wrong with it")
            return 0
        if not given.guided:
            _rounds(chosen, given)
            return 0
    number = random.SystemRandom().randrange(1, 2**31) if given.seed is None else given.seed
    return guided([target.name for target in chosen], seconds=given.seconds, number=number, folder=given.corpus)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long, all targets together [60]")
    parser.add_argument("--target", default="", help="only targets with this in their name")
    parser.add_argument("--seed", type=int, default=None, help="one round with this seed")
    parser.add_argument(
        "--examples", type=int, default=ROUND_EXAMPLES, help=f"of each target in a round [{ROUND_EXAMPLES}]"
    )
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    parser.add_argument("--corpus", type=Path, default=None, help="where guided fuzzing keeps what it has found out")
    parser.add_argument("--input", type=Path, default=None, help="try what is in this file, which guided fuzzing wrote")
    return parser


def _rounds(chosen: Sequence[Target], given: argparse.Namespace) -> None:
    chance, end, rounds = random.SystemRandom(), time.monotonic() + given.seconds, 0
    while rounds == 0 or (given.seed is None and time.monotonic() < end):
        number = chance.randrange(2**32) if given.seed is None else given.seed
        for target in chosen:
            fuzz(target, examples=given.examples, number=number)
        rounds += 1
    print(f"{rounds} rounds of {given.examples} examples for each of {len(chosen)} targets")


if __name__ == "__main__":
    sys.exit(main())
