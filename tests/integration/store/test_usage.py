"""What a store says that it holds for an owner and for a tenant."""

from __future__ import annotations

import pytest

from tests.support.builders import ALICE, BOB, EVE, NOW_MS, append, create, done, encoded
from unbroken.identity import Principal
from unbroken.messages import StreamState
from unbroken.quotas import Usage, kept_bytes
from unbroken.store.base import Close, DeleteSession, DeleteStream, PutSession, StreamingMessageRepository

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
Store = StreamingMessageRepository
ROW = kept_bytes("{}", "{}")
"""A stream of which nothing is said."""


async def used(store: Store, principal: Principal) -> Usage:
    return await store.usage(principal.tenant, principal.subject)


async def test_usage_is_what_is_stored_and_what_has_not_ended(store: Store) -> None:
    assert await used(store, ALICE) == Usage()
    assert await store.usage(ALICE.tenant, None) == Usage()
    first = await create(store, "a")
    second = await create(store, "b")
    await append(store, first, [encoded("one"), encoded("two")])
    found = await store.get(ALICE, "a")
    assert found is not None
    assert found.size_bytes > 0
    assert await used(store, ALICE) == Usage(found.size_bytes + 2 * ROW, 2)
    assert await used(store, BOB) == Usage()
    await create(store, "a", principal=BOB)
    await create(store, "a", principal=EVE)
    assert await used(store, ALICE) == Usage(found.size_bytes + 2 * ROW, 2)
    assert await store.usage(ALICE.tenant, None) == Usage(found.size_bytes + 3 * ROW, 3)
    assert await used(store, EVE) == await store.usage(EVE.tenant, None) == Usage(ROW, 1)
    await append(store, second, [], close=Close(StreamState.COMPLETED))
    assert await used(store, ALICE) == Usage(found.size_bytes + 2 * ROW, 1)
    await done(store, DeleteStream(stream=first.id, epoch=first.epoch))
    assert await used(store, ALICE) == Usage(ROW, 0)


async def test_what_is_said_of_streams_and_sessions_is_counted(store: Store) -> None:
    text = '{"said":"' + "é" * 10_000 + '"}'
    size = len(text.encode())
    stream = await create(store, "a", metadata=text, run=text)
    await append(store, stream, [], close=Close(StreamState.FAILED, text))
    await create(store, "a", principal=BOB)

    async def more(least: int, than: int = 0) -> int:
        """Encrypted texts are longer than what they hold, by at most half."""
        found = await used(store, ALICE)
        assert than + least <= found.stored_bytes <= than + 1.5 * least
        assert await store.usage(ALICE.tenant, None) == Usage(found.stored_bytes + ROW, 1)
        return found.stored_bytes

    streams = await more(3 * size)
    for number in range(3):
        await done(store, PutSession(principal=ALICE, name=f"s{number}", now_ms=NOW_MS, metadata=text))
    await more(3 * size, streams)
    await done(store, PutSession(principal=ALICE, name="s0", now_ms=NOW_MS, metadata="{}"))
    await done(store, DeleteSession(principal=ALICE, name="s1"))
    await more(size, streams)
    await done(store, DeleteSession(principal=ALICE, name="s2"))
    assert (await used(store, ALICE)).stored_bytes == streams + kept_bytes("{}")
