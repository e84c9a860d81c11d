"""What a store says that it holds for an owner and for a tenant."""

from __future__ import annotations

import pytest

from tests.support.builders import ALICE, BOB, EVE, append, create, done, encoded
from unbroken.identity import Principal
from unbroken.messages import StreamState
from unbroken.quotas import Usage
from unbroken.store.base import Close, DeleteStream, StreamingMessageRepository

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
Store = StreamingMessageRepository


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
    assert await used(store, ALICE) == Usage(found.size_bytes, 2)
    assert await used(store, BOB) == Usage()
    await create(store, "a", principal=BOB)
    await create(store, "a", principal=EVE)
    assert await used(store, ALICE) == Usage(found.size_bytes, 2)
    assert await store.usage(ALICE.tenant, None) == Usage(found.size_bytes, 3)
    assert await used(store, EVE) == await store.usage(EVE.tenant, None) == Usage(0, 1)
    await append(store, second, [], close=Close(StreamState.COMPLETED))
    assert await used(store, ALICE) == Usage(found.size_bytes, 1)
    await done(store, DeleteStream(stream=first.id, epoch=first.epoch))
    assert await used(store, ALICE) == Usage(0, 0)
