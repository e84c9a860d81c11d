"""What keeps the store small: deleting what has expired and merging small chunks.

`Retention` runs beside the log, in bounded steps, and goes through the log for everything that viewers can notice. It
decides nothing about a stream's life cycle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from heapq import nlargest
from operator import itemgetter

from unbroken.errors import DrainingError, UnbrokenError
from unbroken.log import Change, Log
from unbroken.messages import StreamId
from unbroken.store.base import DeleteStream, Done
from unbroken.streams import Streams

__all__ = ["Retention"]

logger = logging.getLogger(__name__)


class Retention:
    """Deletes expired streams and compacts those that were written to."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._log: Log = streams.log
        self._commits: dict[StreamId, int] = {}
        self._erasing = True
        """Whether something that was erased may still be in the store's files: an earlier process may have been killed."""
        self._log.on_commit(self._committed)

    def _committed(self, changes: Sequence[Change]) -> None:
        """Count small chunks per stream; `compact_chunks_min` of them are worth a merge."""
        commits = self._commits
        for change in changes:
            if change.info is not None and change.info.erased is not None:
                self._erasing = True
            if change.messages:
                commits[change.stream] = commits.get(change.stream, 0) + 1

    async def expire(self) -> int:
        """Delete streams whose time is over, at most `expire_batch_streams_max`; how many.

        One that is touched or written before the delete takes effect stays.
        """
        streams = self._streams
        now = streams.clock.now_ms()
        found = await streams.store.expired(now, limit=streams.limits.expire_batch_streams_max)
        results = await self._log.write_all(
            [DeleteStream(stream=info.id, epoch=info.epoch, only_if_expired_at_ms=now) for info in found]
        )
        count = sum(isinstance(result, Done) for result in results)  # others were deleted meanwhile, or live on
        self._log.metrics.expired.inc(count)
        return count

    async def compact(self) -> int:
        """Merge the small chunks of streams that have gathered enough of them; how many steps were worth it."""
        enough = self._streams.limits.compact_chunks_min
        steps = 0
        for stream, commits in list(self._commits.items()):
            if commits < enough:
                continue
            self._commits.pop(stream, None)
            while await self._streams.store.compact(stream):
                steps += 1
        most = self._streams.limits.page_items_max
        if len(self._commits) > most:  # only a guess at what might be worth it: the least may be forgotten
            self._commits = dict(nlargest(most, self._commits.items(), key=itemgetter(1)))
        return steps

    async def scrub(self) -> None:
        """Go on destroying what was erased, where that was not finished."""
        while self._erasing:
            self._erasing = False
            try:
                self._erasing = await self._streams.store.scrub()
            except UnbrokenError:
                self._erasing = True
                raise

    async def run(self) -> None:
        """Expire and compact for ever, every `reap_interval_seconds`."""
        while True:
            await asyncio.sleep(self._streams.limits.reap_interval_seconds)
            try:
                await self.expire()
                await self.compact()
                await self.scrub()
            except DrainingError:
                return
            except UnbrokenError as error:
                logger.warning("cannot tidy the store: %s %s", error.code, error)
