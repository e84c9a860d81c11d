"""Owns the process in which atheris fuzzes one target: it instruments our modules as they are imported, and never returns.

`guided` starts it, for each target anew: atheris ends its process when the time is over, as it does with the first defect.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def main(name: str, number: str, corpus: str, *options: str) -> None:
    """Fuzz the target of that name, beginning with its seeds and what is in the folder `corpus`, which grows."""
    atheris: Any = importlib.import_module("atheris")
    atheris.enabled_hooks.add("str")  # so that what text is asked to start with is tried
    with atheris.instrument_imports(include=["unbroken"]):
        running = importlib.import_module("tests.fuzz.running")
        feeding = importlib.import_module("tests.fuzz.feeding")
    with running.every_target() as targets:
        (target,) = [target for target in targets if target.name == name]
        for at, seed in enumerate(feeding.seeds(target, int(number))):
            Path(corpus, f"seed-{at}").write_bytes(seed[: feeding.BYTES_MAX])
        words = Path(f"{corpus}.words")
        words.write_text(feeding.words())
        fixed = [f"-seed={number}", f"-max_len={feeding.BYTES_MAX}", f"-dict={words}"]
        atheris.Setup([sys.argv[0], *fixed, *options, corpus], feeding.feed(target))
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
