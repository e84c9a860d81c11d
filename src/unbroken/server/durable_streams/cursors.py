"""The protocol's `cursor` parameter: a number that makes the URLs of waiting readers collapse in caches.

Called by the live handlers of this package. Pure: the time and the chance are brought by the caller. It has nothing to do
with a viewer's cursor (`messages.Cursor`).
"""

from __future__ import annotations

import random
import re
from typing import Final

__all__ = ["cache_cursor"]

_EPOCH_MS: Final = 1_728_432_000_000
"""2024-10-09T00:00:00Z."""
_INTERVAL_MS: Final = 20_000
_JITTER_SECONDS_MAX: Final = 3_600
_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


def cache_cursor(now_ms: int, given: str | None, chance: random.Random) -> str:
    """The number of the present interval of 20 seconds, or one that is greater than `given` by chance.

    Strictly greater than what the client sent, so that no cache answers it with what it has just read.
    """
    present = (now_ms - _EPOCH_MS) // _INTERVAL_MS
    if given is None or _NUMBER.fullmatch(given) is None or int(given) < present:
        return str(max(0, present))
    jitter_ms = chance.randint(1, _JITTER_SECONDS_MAX) * 1000
    return str(int(given) + max(1, -(-jitter_ms // _INTERVAL_MS)))
