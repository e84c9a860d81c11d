"""A process of its own that appends to a stream of a database file; the tests of several processes start it.

`writing_process.py PATH STREAM PRODUCER COUNT`: says `open` when it can write and waits for a line. With COUNT 0 it writes
for ever and says every acknowledged seq, until it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.integration.store.opening import keyed
from tests.support.builders import ALICE, appending, encoded
from unbroken.errors import StoreUnavailableError
from unbroken.store.base import Append, Appended, Durability, Producer
from unbroken.store.sqlite import SQLiteStore


async def patiently(store: SQLiteStore, op: Append) -> Appended:
    while True:
        try:
            (result,) = await store.write([op])
        except StoreUnavailableError:
            continue
        assert isinstance(result, Appended), result
        return result


async def main(path: str, name: str, producer: str, count: int) -> None:
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await store.open()
    stream = await store.get(ALICE, name)
    assert stream is not None
    print("open", flush=True)  # noqa: T201 - the tests read it
    await asyncio.to_thread(sys.stdin.readline)
    for seq in range(count) if count else itertools.count():
        op = appending(stream, [encoded(f"{producer}:{seq}")], producer=Producer(producer, 1, seq))
        result = await patiently(store, op)
        again = await patiently(store, op)
        assert again.duplicate
        assert again.first == result.first
        if not count:
            print(result.last, flush=True)  # noqa: T201 - the tests read it
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
