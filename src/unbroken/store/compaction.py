"""Which small batches of a stream are merged next, and what they become.

Stores call it for one bounded step at a time. Merging changes neither messages nor their order nor the chain's values,
and this module never touches a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from unbroken.limits import Limits
from unbroken.messages import SEPARATOR, Seq
from unbroken.protocol.chain import LEAF_MARK_BYTES
from unbroken.store.base import Batch

__all__ = ["Picked", "merge", "pick"]


class Picked(NamedTuple):
    """A `run` of consecutive batches to merge (empty: nothing to do yet); all up to `settled` is large enough for good."""

    run: tuple[Batch, ...]
    settled: Seq


def pick(batches: Iterable[Batch], limits: Limits, *, ended: bool) -> Picked:
    """The first run worth merging: one that fills a large batch, one of many small ones, or the rest of an ended stream."""
    run: list[Batch] = []
    size = 0
    settled = Seq(0)
    passed = 0
    for batch in batches:
        if run and size + len(batch.body) > limits.compact_chunk_bytes:
            if len(run) > 1:
                return Picked(tuple(run), run[-1].last)
            settled, passed = run[-1].last, passed + 1
            run, size = [], 0
            if passed >= limits.delete_step_chunks_max:
                return Picked((), settled)
        run.append(batch)
        size += len(batch.body) + len(SEPARATOR)
    if len(run) > 1 and (ended or len(run) >= limits.compact_chunks_min):
        return Picked(tuple(run), run[-1].last if ended else settled)
    return Picked((), settled)


def merge(run: Sequence[Batch]) -> Batch:
    """One batch of the same messages."""
    assert all(right.first == left.last + 1 for left, right in pairwise(run)), "a run is dense"
    body = SEPARATOR.join([batch.body for batch in run])
    return Batch(run[0].first, run[-1].last, body, run[-1].hash, marks=_marks(run))


def _marks(run: Sequence[Batch]) -> bytes:
    """Those of all messages, none where some are not known."""
    n = run[-1].last - run[0].first + 1
    marks = b"".join([batch.marks for batch in run])
    return marks if len(marks) == n * LEAF_MARK_BYTES else b""
