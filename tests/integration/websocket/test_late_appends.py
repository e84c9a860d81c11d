"""What a producer has waiting for its turn when it may not come in any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.integration.websocket.test_frame_rates import ACCESS, LIMITS, bearer, stop_time
from tests.integration.websocket.test_hostile import until
from tests.support.speeds import Speed, running_server
from unbroken.identity import Principal, Verb

pytestmark = pytest.mark.anyio


@pytest.mark.scenario("SEC-002")
async def test_what_waits_for_its_turn_is_not_stored_when_the_credential_has_ended() -> None:
    limits = replace(LIMITS, owner_requests_per_second_max=0, owner_messages_per_second_max=1)
    async with running_server(Speed.STANDALONE, limits=limits, access=ACCESS) as server:
        quotas, alice = server.services.quotas, Principal("acme", "alice")
        really = quotas.now
        stop_time(server)
        async with server.peer(additional_headers=await bearer(server, "alice")) as peer:
            await peer.send(type="create", id=0, stream="a")
            await peer.receive("result")
            for number in (1, 2):
                await peer.send(type="append", id=number, stream="a", messages=[{"text": str(number)}])
            await peer.receive("acks")
            (connection,) = server.services.connections
            await until(lambda: connection._busy and not connection._inbox)
            assert server.services.live.expel(connection.principal.credential) == 1
            await peer.receive("error")
            quotas.now = really
            await until(lambda: not connection._busy)
        stream = await server.services.streams.get(alice, "a", may=Verb.READ)
        assert stream.head == 1
