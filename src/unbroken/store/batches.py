"""Stored batches put together for whoever reads many of them.

The hub calls it on what a store gives; it changes no message and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unbroken.messages import join_encoded
from unbroken.store.base import Batch

__all__ = ["merged"]


def merged(batches: Sequence[Batch], bytes_max: int) -> list[Batch]:
    """Small stored batches put together, so that catching up costs few frames; each at most about `bytes_max`."""
    found: list[Batch] = []
    waiting: list[Batch] = []
    size = 0
    for batch in batches:
        if waiting and size + len(batch.body) > bytes_max:
            found.append(_joined(waiting))
            waiting, size = [], 0
        waiting.append(batch)
        size += len(batch.body)
    if waiting:
        found.append(_joined(waiting))
    return found


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    last = batches[-1]
    return replace(last, first=batches[0].first, body=join_encoded([batch.body for batch in batches]))
