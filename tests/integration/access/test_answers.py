"""What the answer to a change tells: what is in a stream only to who may read it, on every face."""

from __future__ import annotations

import json

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.integration.access.test_ownership import (
    ALICE,
    ALL,
    FRAMES,
    NOTE,
    NUMBERS,
    OPS,
    framed,
    guarded,
    noted,
    planted,
)
from tests.support.speeds import Peer, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.identity import Grant, Verb
from unbroken.protocol.frames import PROTOCOL
from unbroken.runs.catalog import Catalog
from unbroken.runs.task import Tasks
from unbroken.server.services import Services
from unbroken.store.memory import MemoryStore

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-002")]
ALL_BUT_READ = ALL - {Verb.READ}


async def key_of(services: Services, name: str, verbs: frozenset[Verb]) -> dict[str, str]:
    made = await services.tokens.make(ALICE, NewToken(grants=(Grant(name, verbs),)))
    return {"authorization": f"Bearer {made.secret}"}


@pytest.mark.parametrize("verbs", [ALL, ALL_BUT_READ], ids=["all", "all but read"])
async def test_the_answer_to_a_change_tells_what_is_in_a_stream_to_who_may_read_it_alone(
    verbs: frozenset[Verb],
) -> None:
    told = 0
    async with guarded() as server:
        for op in OPS:
            if op.verb is Verb.READ:
                continue
            name = f"my/{next(NUMBERS)}"
            await planted(server.services, name, run=op.run)
            headers = {"content-type": "application/json", **op.headers}
            headers |= await key_of(server.services, name, verbs)
            body = json.dumps(op.body).replace("NAME", name) if isinstance(op.body, dict) else op.body
            answer = await server.client.request(
                op.method, op.path.replace("NAME", name), content=body, headers=headers
            )
            assert answer.status_code not in {401, 403, 405}, (op, answer.text)
            assert f"no stream {name!r}" not in answer.text, (op, answer.text)
            assert Verb.READ in verbs or NOTE not in answer.text, (op, answer.text)
            told += NOTE in answer.text
    assert told == (7 if Verb.READ in verbs else 0)


@pytest.mark.parametrize("verbs", [ALL, ALL_BUT_READ], ids=["all", "all but read"])
async def test_the_answer_to_a_frame_tells_it_to_who_may_read_it_alone(verbs: frozenset[Verb]) -> None:
    told = 0
    access = Access(token="the-operators-own-in-this-test")
    catalog = Catalog([Tasks([noted])])
    async with running_server(Speed.STANDALONE, store=MemoryStore(), access=access, catalog=catalog) as server:
        for number, (verb, frame, _) in enumerate(FRAMES, 1):
            if verb is Verb.READ:
                continue
            name = f"my/{next(NUMBERS)}"
            await planted(server.services, name, run=verb is Verb.START)
            headers = await key_of(server.services, name, verbs)
            address = f"ws://127.0.0.1:{server.port}/v1/ws"
            async with connect(address, subprotocols=[Subprotocol(PROTOCOL)], additional_headers=headers) as socket:
                peer = Peer(socket)
                await peer.receive("hello")
                answer = json.dumps(await framed(peer, frame, name, number))
            assert f"no stream {name!r}" not in answer, (frame, answer)
            assert Verb.READ in verbs or NOTE not in answer, (frame, answer)
            told += NOTE in answer
    assert told == (4 if Verb.READ in verbs else 0)
