"""Owns the long form of fuzzing, `python -m tests.fuzz --seconds 3600`: round after round, each with a seed of its own.

A person or a nightly job calls it. It ends with the first defect, told with its input and how to see it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.fuzz.running import every_target, fuzz

ROUND_EXAMPLES = 500


def main() -> int:
    """0 when the time was over, 1 with a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long [60]")
    parser.add_argument("--target", default="", help="only targets with this in their name")
    parser.add_argument("--seed", type=int, default=None, help="one round with this seed")
    parser.add_argument(
        "--examples", type=int, default=ROUND_EXAMPLES, help=f"of each target in a round [{ROUND_EXAMPLES}]"
    )
    given = parser.parse_args()
    chance, end, rounds = random.SystemRandom(), time.monotonic() + given.seconds, 0
    with every_target() as targets:
        chosen = [target for target in targets if given.target in target.name]
        while chosen and (rounds == 0 or time.monotonic() < end):
            number = chance.randrange(2**32) if given.seed is None else given.seed
            for target in chosen:
                fuzz(target, examples=given.examples, number=number)
            rounds += 1
            if given.seed is not None:
                break
    print(f"{rounds} rounds of {given.examples} examples for each of {len(chosen)} targets")
    return 0 if chosen else 64


if __name__ == "__main__":
    sys.exit(main())
