"""Runs over HTTP: what there is to run, starting it, its summary, trying it again, answering its questions (PROTOCOL.md 6).

`http` mounts the handlers. What a run is and who executes it, they leave to the desk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from unbroken.identity import Verb
from unbroken.protocol.views import answer_view
from unbroken.runs.spec import RunRequest
from unbroken.server.resource import Body, Call, json_response

if TYPE_CHECKING:
    from starlette.responses import Response

    from unbroken.store.base import Created

__all__ = ["answer_run", "get_run", "list_runnables", "retry_run", "start_run"]


class AnswerBody(Body, frozen=True, kw_only=True):
    """`id` is that of the question; `response` any JSON value."""

    id: str
    response: msgspec.Raw


async def list_runnables(call: Call) -> Response:
    call.query()
    return json_response({"sources": await call.services.desk.view(call.principal)})


async def start_run(call: Call) -> Response:
    return _created(call, await call.services.desk.start(call.principal, await call.body(RunRequest)))


async def get_run(call: Call) -> Response:
    call.query()
    stream = await call.services.streams.get(call.principal, call.name, may=Verb.READ)
    return json_response(await call.services.desk.summary(stream))


async def retry_run(call: Call) -> Response:
    await call.body(Body)
    stream = await call.services.streams.get(call.principal, call.name, may=Verb.START)
    return _created(call, await call.services.desk.retry(call.principal, stream))


async def answer_run(call: Call) -> Response:
    body = await call.body(AnswerBody)
    stream = await call.services.streams.get(call.principal, call.name, may=Verb.START)
    done = await call.services.desk.answer(call.principal, stream, body.id, body.response)
    return json_response({"seq": done.last, "cursor": f"{stream.epoch}:{done.last}"})


def _created(call: Call, created: Created) -> Response:
    return json_response(answer_view(created.stream, call.principal), 201 if created.created else 200)
