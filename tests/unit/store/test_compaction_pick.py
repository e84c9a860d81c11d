"""Which batches are merged."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, join_encoded, split_encoded
from unbroken.store.base import Batch
from unbroken.store.compaction import merge, pick

LIMITS = replace(DEFAULT_LIMITS, compact_chunks_min=4, compact_chunk_bytes=100, delete_step_chunks_max=5)


def batches(*sizes: int) -> list[Batch]:
    """Batches of one message each, with bodies of these sizes."""
    return [Batch(Seq(n), Seq(n), b"x" * size, bytes([n])) for n, size in enumerate(sizes, 1)]


def picked(sizes: list[int], *, ended: bool = False) -> tuple[list[int], int]:
    run, settled = pick(batches(*sizes), LIMITS, ended=ended)
    return [batch.last for batch in run], settled


def test_a_run_is_what_fills_a_chunk_or_many_small_ones_or_the_rest_of_an_ended_stream() -> None:
    assert picked([]) == ([], 0)
    assert picked([10, 10, 10]) == ([], 0)
    assert picked([10, 10, 10, 10]) == ([1, 2, 3, 4], 0)
    assert picked([40, 40, 40]) == ([1, 2], 2)
    assert picked([10, 10], ended=True) == ([1, 2], 2)
    assert picked([10], ended=True) == ([], 0)


def test_what_is_large_already_is_settled_and_passed_over_in_bounded_steps() -> None:
    assert picked([500, 10, 10]) == ([], 1)
    assert picked([500, 500, 30, 30, 30, 30]) == ([3, 4, 5], 5)
    assert picked([500] * 9) == ([], 5)


@given(st.lists(st.integers(1, 150), max_size=40), st.booleans())
def test_merging_until_nothing_is_left_keeps_every_message(sizes: list[int], ended: bool) -> None:
    stored = batches(*sizes)
    whole = join_encoded([batch.body for batch in stored])
    settled = Seq(0)
    for _ in range(200):
        behind = [batch for batch in stored if batch.last > settled]
        run, now_settled = pick(behind, LIMITS, ended=ended)
        moved = now_settled > settled
        settled = max(settled, now_settled)
        if run:
            at = stored.index(run[0])
            stored[at : at + len(run)] = [merge(run)]
        elif not moved:
            break
    else:
        raise AssertionError("there is no end to it")
    assert join_encoded([batch.body for batch in stored]) == whole
    assert [seq for batch in stored for seq in range(batch.first, batch.last + 1)] == list(range(1, len(sizes) + 1))
    assert sum(len(split_encoded(batch.body)) for batch in stored) == len(sizes)
    if ended:
        pairs = pairwise(stored)
        assert all(len(a.body) + len(b.body) + 2 > LIMITS.compact_chunk_bytes for a, b in pairs)
