"""The HTTP face as an OpenAPI document: what each path takes and gives, for generators of clients and for tools that try it.

`http` mounts `read_openapi` at `/v1/openapi.json`; `docs/reference/openapi.json` is the same. It describes and decides
nothing: tests compare it with what the handlers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from unbroken.messages import Message, StreamState
from unbroken.protocol.frames import CloseSpec, StreamView
from unbroken.protocol.views import GrantView, SessionView, TokenView
from unbroken.runs.spec import RunRequest
from unbroken.server.http_access import TicketBody
from unbroken.server.http_messages import AppendBody
from unbroken.server.http_runs import AnswerBody
from unbroken.server.http_sessions import SessionBody
from unbroken.server.http_streams import ErasureBody, LeaseBody, StreamBody, TrimBody
from unbroken.server.http_tokens import TokenBody
from unbroken.server.resource import Body, Call, json_response
from unbroken.server.schemas import Schema, schemas

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = ["OPERATIONS", "Operation", "openapi", "read_openapi"]

_ANY: Final[Schema] = {}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 1}
_FLAG: Final[Schema] = {"enum": ["true", "false"]}
_TEXT: Final[Schema] = {"type": "string"}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What every refusal says (RFC 9457)."""

    status: int
    title: str
    code: str
    detail: str
    cure: str
    retryable: bool
    facts: dict[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path: `gives` is what a success holds, by its status."""

    summary: str
    gives: Mapping[int, Schema | None]
    query: tuple[str, ...] = ()
    takes: type[msgspec.Struct] | None = None
    media_type: str = "application/json"


def _ref(kind: type[msgspec.Struct]) -> Schema:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
_NEXT: Final[Schema] = {"type": ["string", "null"]}
_STREAM: Final = {200: _ref(StreamView)}
_MADE: Final = {200: _ref(StreamView), 201: _ref(StreamView)}
_STREAMS: Final = {200: _object(streams=_list(_ref(StreamView)), next=_NEXT)}
_FLAGS: Final = {"active", "run"}
_NUMBERS: Final = {"limit"}
_CHOICES: Final[dict[str, Schema]] = {
    "live": {"enum": ["sse", "long-poll"]},
    "state": {"enum": [state.value for state in StreamState]},
}
_PAGE: Final = ("limit", "page")
_APPENDED: Final = _object(
    first=_NUMBER, last=_NUMBER, head=_NUMBER, state=_TEXT, duplicate={"type": "boolean"}, cursor=_TEXT
)
_READ: Final = _object(
    stream=_ref(StreamView),
    first=_NUMBER,
    last=_NUMBER,
    cursor=_TEXT,
    hash=_TEXT,
    up_to_date={"type": "boolean"},
    messages=_list(_ref(Message)),
)
_TOKEN: Final = _object(
    token=_TEXT,
    id=_TEXT,
    kind=_TEXT,
    label=_TEXT,
    grants={"anyOf": [_list(_ref(GrantView)), {"type": "null"}]},
    created=_NUMBER,
    expires={"type": ["integer", "null"]},
)
_BATCH: Final = _object(stream=_TEXT, epoch=_NUMBER, first=_NUMBER, messages=_list(_ref(Message)))

OPERATIONS: Final[dict[str, dict[str, Operation]]] = {
    "/v1/streams": {
        "GET": Operation(
            "List streams, newest first.",
            _STREAMS,
            query=("session", "prefix", "kind", "state", "active", "run", *_PAGE),
        )
    },
    "/v1/streams/{name}": {
        "GET": Operation("The state of a stream.", _STREAM),
        "PUT": Operation("Create a stream, or find it as it was asked for.", _MADE, takes=StreamBody),
        "DELETE": Operation("Delete a stream and its messages.", {204: None}),
    },
    "/v1/messages/{name}": {
        "GET": Operation(
            "Read messages; with `live`, wait for the next or follow as server-sent events.",
            {200: _READ, 204: None},
            query=("after", "limit", "live"),
        ),
        "POST": Operation("Append messages durably.", {200: _APPENDED}, takes=AppendBody),
    },
    "/v1/content/{name}": {"GET": Operation("All payloads as one body, to be saved.", {200: _ANY}, media_type="*/*")},
    "/v1/close/{name}": {"POST": Operation("End a stream.", _STREAM, takes=CloseSpec)},
    "/v1/cancel/{name}": {"POST": Operation("Ask the producer to stop.", {202: _ref(StreamView)}, takes=Body)},
    "/v1/lease/{name}": {"POST": Operation("Take, renew or give back the lease.", _STREAM, takes=LeaseBody)},
    "/v1/pause/{name}": {"POST": Operation("Let a stream rest.", _STREAM, takes=Body)},
    "/v1/resume/{name}": {"POST": Operation("Let it go on.", _STREAM, takes=Body)},
    "/v1/trim/{name}": {"POST": Operation("Forget the oldest messages.", _STREAM, takes=TrimBody)},
    "/v1/verify/{name}": {"GET": Operation("Recompute the hash chain.", {200: {"type": "object"}})},
    "/v1/runnables": {"GET": Operation("What there is to run.", {200: _object(sources=_list({"type": "object"}))})},
    "/v1/runs": {"POST": Operation("Start a run, or find the one with that key or name.", _MADE, takes=RunRequest)},
    "/v1/runs/{name}": {"GET": Operation("A run in short.", {200: {"type": "object"}})},
    "/v1/retry/{name}": {"POST": Operation("Run once more what ended badly.", _MADE, takes=Body)},
    "/v1/answer/{name}": {
        "POST": Operation("Answer a question of a run.", {200: _object(seq=_NUMBER, cursor=_TEXT)}, takes=AnswerBody)
    },
    "/v1/sessions": {
        "GET": Operation("List sessions.", {200: _object(sessions=_list(_ref(SessionView)), next=_NEXT)}, query=_PAGE)
    },
    "/v1/sessions/{name}": {
        "GET": Operation("The state of a session.", {200: _ref(SessionView)}),
        "PUT": Operation(
            "Create or change a session.", {200: _ref(SessionView), 201: _ref(SessionView)}, takes=SessionBody
        ),
        "DELETE": Operation("Delete a session without streams.", {204: None}),
    },
    "/v1/session-streams/{name}": {"GET": Operation("The streams of a session, oldest first.", _STREAMS, query=_PAGE)},
    "/v1/session-messages/{name}": {
        "GET": Operation(
            "All messages of all its streams, in order.", {200: _object(batches=_list(_BATCH), next=_NEXT)}, query=_PAGE
        )
    },
    "/v1/tokens": {
        "GET": Operation("List tokens.", {200: _object(tokens=_list(_ref(TokenView)), next=_NEXT)}, query=_PAGE),
        "POST": Operation("Make a token that hands on rights.", {201: _TOKEN}, takes=TokenBody),
    },
    "/v1/tokens/{name}": {"DELETE": Operation("Revoke a token.", {204: None})},
    "/v1/tickets": {
        "POST": Operation(
            "A ticket for one WebSocket handshake, or one reading request, of a browser.",
            {201: _object(ticket=_TEXT, expires_in=_NUMBER)},
            takes=TicketBody,
        )
    },
    "/v1/logout": {"POST": Operation("Revoke the credential of this request.", {204: None}, takes=Body)},
    "/v1/erasures": {
        "POST": Operation(
            "Erase what one stream held, or all of yours.",
            {200: _object(streams=_ANY, sessions=_ANY)},
            takes=ErasureBody,
        )
    },
    "/v1/openapi.json": {"GET": Operation("This document.", {200: {"type": "object"}})},
}


async def read_openapi(call: Call) -> Response:
    call.query()
    return json_response(_encoded())


@cache
def _encoded() -> bytes:
    return msgspec.json.encode(openapi())


def openapi() -> Schema:
    """The document, for OpenAPI 3.1."""
    types = [operation.takes for methods in OPERATIONS.values() for operation in methods.values() if operation.takes]
    gives: list[type[msgspec.Struct]] = [StreamView, SessionView, TokenView, Message, Problem]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Unbroken",
            "version": "1",
            "summary": "Streams that survive; PROTOCOL.md says what they promise.",
        },
        "security": [{}, {"bearer": []}],
        "paths": {
            path: {method.lower(): _operation(path, operation) for method, operation in methods.items()}
            for path, methods in OPERATIONS.items()
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas([*gives, *types]),
        },
    }


def _operation(path: str, operation: Operation) -> Schema:
    described: Schema = {"summary": operation.summary}
    parameters = [_parameter("name", "path", _TEXT)] if "{name}" in path else []
    parameters += [_parameter(name, "query", _of_query(name)) for name in operation.query]
    if parameters:
        described["parameters"] = parameters
    if operation.takes is not None:
        described["requestBody"] = {"content": {"application/json": {"schema": _ref(operation.takes)}}}
    refusal = {"description": "refused", "content": {"application/problem+json": {"schema": _ref(Problem)}}}
    answers: Schema = {str(status): _answer(operation, gives) for status, gives in operation.gives.items()}
    described["responses"] = {**answers, "4XX": refusal, "5XX": refusal}
    return described


def _answer(operation: Operation, schema: Schema | None) -> Schema:
    if schema is None:
        return {"description": "done"}
    content: Schema = {operation.media_type: {"schema": schema}}
    if "live" in operation.query:
        content["text/event-stream"] = {"schema": _TEXT}
    return {"description": "done", "content": content}


def _parameter(name: str, place: str, schema: Schema) -> Schema:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _of_query(name: str) -> Schema:
    if name in _FLAGS:
        return _FLAG
    return _WHOLE if name in _NUMBERS else _CHOICES.get(name, _TEXT)
