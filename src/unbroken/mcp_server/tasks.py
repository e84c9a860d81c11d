"""The tasks extension of MCP (`io.modelcontextprotocol/tasks`): a run as a task that a host follows by itself.

`service` adds it to the server. A task is a run's stream and nothing beside it: any process answers for it, today or later.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, cast

import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ConfigDict, Field

from unbroken.client.values import Json
from unbroken.errors import AlreadyExistsError, EndedError, InvalidError, NotFoundError, UnbrokenError
from unbroken.mcp_server.arguments import StartTask
from unbroken.mcp_server.output import encoded, error_text
from unbroken.mcp_server.remote import Remote
from unbroken.mcp_server.tools import start, tail_of, task_of
from unbroken.protocol.frames import StreamView

__all__ = ["EXTENSION", "Tasks"]

EXTENSION: Final = "io.modelcontextprotocol/tasks"
METADATA: Final = "mcp_task"
POLL_MS: Final = 1_000
STATUS: Final = {"completed": "completed", "failed": "completed", "timed_out": "completed", "cancelled": "cancelled"}
"""How an end is told. A run that has failed is a call that came back with an error; an interrupted one is a fault."""
Shown = dict[str, Json]


class _TaskParams(types.RequestParams):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    task_id: str = Field(alias="taskId", max_length=2_048)


class _UpdateParams(_TaskParams):
    input_responses: dict[str, object] = Field(default_factory=dict, alias="inputResponses", max_length=100)


class Tasks:
    """Makes `start_task` give a task to whoever has declared the extension, and answers for its tasks.

    The id of a task holds the stream's name and a secret that is stored with the stream: it cannot be guessed, and needs no
    table here.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def add_to(self, server: Server) -> None:
        """Announce the extension and serve its methods."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", _TaskParams, self.get)
        server.add_request_handler("tasks/update", _UpdateParams, self.update)
        server.add_request_handler("tasks/cancel", _TaskParams, self.cancel)

    async def start(self, context: ServerRequestContext, asked: StartTask) -> Shown | None:
        """A task instead of the tool's own answer; None where that has to be given.

        That is so for a client without the extension, and for a run that exists and was not started as a task.
        """
        if not _declared(context):
            return None
        view = await start(self._remote, asked, {METADATA: secrets.token_hex(16)})
        secret = _secret_of(view)
        if secret is None:
            return None
        return {"resultType": "task", **_base(view, _id_of(view, secret)), "status": "working"}

    async def get(self, context: ServerRequestContext, params: _TaskParams) -> Shown:
        """The task as it is now, with its result, its error or its open questions."""
        _check(context, params.task_id)
        with _told(self._remote):
            view, task = await self._now(params.task_id)
        shown = _base(view, params.task_id)
        progress = task.get("progress")
        if isinstance(progress, Mapping) and isinstance(progress.get("message"), str):
            shown["statusMessage"] = progress["message"]
        if view.ended is None:
            return {**shown, **_open(context, task)}
        status = STATUS.get(view.state, "failed")
        if status == "failed":
            error: Shown = {"code": types.INTERNAL_ERROR, "message": f"the run was {view.state}", "data": task}
            return {**shown, "status": status, "error": error}
        if status == "completed":
            result = {"content": [{"type": "text", "text": encoded(task)}], "structuredContent": task}
            shown["result"] = cast("Json", {**result, "isError": view.state != "completed"})
        return {**shown, "status": status}

    async def update(self, context: ServerRequestContext, params: _UpdateParams) -> Shown:
        """Answer open questions; what is not one, or was answered, is passed over."""
        _check(context, params.task_id)
        with _told(self._remote):
            view, task = await self._now(params.task_id)
            for question in _questions(task):
                key = str(question.get("id", ""))
                if key in params.input_responses:
                    await self._answer(view.stream, question, params.input_responses[key])
        return {}

    async def cancel(self, context: ServerRequestContext, params: _TaskParams) -> Shown:
        """Ask the run to stop; also one that has ended."""
        _check(context, params.task_id)
        with _told(self._remote):
            view = await self._found(params.task_id)
            await self._remote.cancel(view.stream)
        return {}

    async def _answer(self, stream: str, question: Mapping[str, Json], response: object) -> None:
        encoded(response)
        try:
            await self._remote.answer(stream, str(question["id"]), _response_to(question, response))
        except (AlreadyExistsError, EndedError):
            return

    async def _now(self, task_id: str) -> tuple[StreamView, Shown]:
        view = await self._found(task_id)
        view, tail = await tail_of(self._remote, view.stream)
        return view, task_of(view, tail, self._remote.limits.agent_output_bytes_max)

    async def _found(self, task_id: str) -> StreamView:
        """The stream of a task; what is no task and what is somebody else's look the same."""
        place, _, given = task_id.partition(".")
        try:
            epoch, _, name = urlsafe_b64decode(place.encode()).decode().partition(":")
            view = await self._remote.state(name)
        except (ValueError, InvalidError, NotFoundError):
            raise _unknown() from None
        secret = _secret_of(view)
        if secret is None or str(view.epoch) != epoch or not hmac.compare_digest(secret.encode(), given.encode()):
            raise _unknown()
        return view


@contextmanager
def _told(remote: Remote) -> Iterator[None]:
    """One request: with a place among the calls, and with the server's errors as those of the protocol."""
    try:
        with remote.turn():
            yield
    except NotFoundError:
        raise _unknown() from None
    except UnbrokenError as error:
        code = types.INTERNAL_ERROR if error.retryable or error.http_status >= 500 else types.INVALID_PARAMS
        raise MCPError(code, error_text(error, remote.limits)) from error


def _declared(context: ServerRequestContext) -> bool:
    capabilities = context.session.client_capabilities
    return (
        context.protocol_version in MODERN_PROTOCOL_VERSIONS
        and capabilities is not None
        and EXTENSION in (capabilities.extensions or {})
    )


def _check(context: ServerRequestContext, task_id: str) -> None:
    """Refuse a client that has not declared the extension, and a request whose header names another task."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
    if not _declared(context):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "the client has not declared the tasks extension",
            {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )
    headers = getattr(context.request, "headers", None)
    named = None if headers is None else headers.get(MCP_NAME_HEADER)
    if named is not None and decode_header_value(named) != task_id:
        raise MCPError(types.HEADER_MISMATCH, "the mcp-name header does not match taskId")


def _unknown() -> MCPError:
    return MCPError(types.INVALID_PARAMS, "there is no such task")


def _secret_of(view: StreamView) -> str | None:
    """The secret of a run that was started as a task."""
    try:
        secret = msgspec.json.decode(view.metadata, type=dict[str, object]).get(METADATA)
    except (msgspec.DecodeError, RecursionError):
        return None
    return secret if isinstance(secret, str) and len(secret) >= 32 and view.run is not msgspec.UNSET else None


def _id_of(view: StreamView, secret: str) -> str:
    return f"{urlsafe_b64encode(f'{view.epoch}:{view.stream}'.encode()).decode()}.{secret}"


def _base(view: StreamView, task_id: str) -> Shown:
    ttl = None if view.ttl_seconds is None else view.ttl_seconds * 1000
    stream: Shown = {"dev.unbroken/stream": view.stream, "dev.unbroken/cursor": f"{view.epoch}:{view.first - 1}"}
    return {
        "taskId": task_id,
        "createdAt": _time(view.created),
        "lastUpdatedAt": _time(view.updated),
        "ttlMs": ttl,
        "pollIntervalMs": POLL_MS,
        "_meta": stream,
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _questions(task: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """The open questions that fit into an answer."""
    listed = task.get("input_required")
    found = [one.get("question") for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return [one for one in found if isinstance(one, Mapping)]


def _open(context: ServerRequestContext, task: Mapping[str, Json]) -> Shown:
    """How a run that goes on is told: it works, or it asks, if the client can put questions to somebody."""
    capabilities = context.session.client_capabilities
    questions = _questions(task)
    if not questions:
        return {"status": "working"}
    if capabilities is None or capabilities.elicitation is None:
        return {"status": "working", "statusMessage": "waits for an answer: see get_task and answer_input"}
    return {"status": "input_required", "inputRequests": {str(one.get("id")): _asked(one) for one in questions}}


def _asked(question: Mapping[str, Json]) -> Shown:
    """A question as the form that MCP asks with. An answer that is no object is the form's only field."""
    schema = question.get("schema")
    if not _is_form(schema):
        schema = {"type": "object", "properties": {"value": schema or {"type": "string"}}, "required": ["value"]}
    message = f"{question.get('message', '')} {question.get('url', '')}".strip()
    params: Shown = {"mode": "form", "message": message, "requestedSchema": schema}
    return {"method": "elicitation/create", "params": params}


def _response_to(question: Mapping[str, Json], given: object) -> Json:
    """What the run is told: the form's content, or its only field; nothing when the question was declined."""
    if not isinstance(given, Mapping):
        return cast("Json", given)
    content = given.get("content")
    if given.get("action") != "accept" or not isinstance(content, Mapping):
        return None
    return cast("Json", content if _is_form(question.get("schema")) else content.get("value"))


def _is_form(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "object"
