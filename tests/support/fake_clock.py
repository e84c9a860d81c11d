"""Owns another wall clock for one process, set while it runs, by libfaketime; its monotonic clock stays as it is.

Tests of clocks that jump or are set back use the fixture `clock`. Where the library is not to be had they are skipped,
by name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.provision_debian import find_faketime

__all__ = ["FakeClock", "clock"]


class FakeClock:
    """A wall clock for one process, set through a file."""

    def __init__(self, directory: Path, library: Path) -> None:
        self._file = directory / "faketime"
        self._library = library
        self.set(0)

    def set(self, seconds: int) -> None:
        """The process's wall clock is so far from ours from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else Python's threads wait 100 times as long for each other
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
        }


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    library = find_faketime()
    if library is None:
        pytest.skip("not run: libfaketime is not to be had here (./run test looks for it)")
    return FakeClock(tmp_path, library)
