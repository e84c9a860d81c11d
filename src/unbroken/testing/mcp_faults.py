"""The ways in which the mock MCP server over HTTP fails a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from unbroken.testing.mcp_wire import CHALLENGE, Json, McpRequest, Wire, reset, text

if TYPE_CHECKING:
    from unbroken.testing.mcp_http import MockMcpServer

__all__ = ["FAULTS", "Behaviour", "McpFault"]

CHUNK: Final = b"x" * 65_536


class McpFault(StrEnum):
    """What goes wrong with a call of the tool `faulty` (or, where said, with everything)."""

    NONE = "none"
    RESET = "reset"
    CLOSE = "close"
    HANG = "hang"
    HANG_EVERYTHING = "hang everything"
    SSE_HANG = "sse hang"
    SSE_COMMENTS = "sse comments"
    SSE_CUT = "sse cut"
    SSE_CUT_IN_EVENT = "sse cut in event"
    SSE_DRIP = "sse drip"
    SSE_FLOOD = "sse flood"
    SSE_LOG_FLOOD = "sse log flood"
    SSE_BAD_JSON = "sse bad json"
    SSE_WRONG_ID = "sse wrong id"
    SSE_ENDLESS_EVENT = "sse endless event"
    UNAUTHORIZED = "401"
    UNAUTHORIZED_EVERYTHING = "401 everything"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    TOO_LARGE = "413"
    RATE_LIMITED = "429"
    RATE_LIMITED_JSON = "429 json"
    RATE_LIMITED_ONCE = "429 once"
    INTERNAL = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    REDIRECT_AWAY = "redirect away"
    REDIRECT_HERE = "redirect here"
    LOGIN_PAGE = "login page"
    ACCEPTED = "202"
    NOT_JSON = "not json"
    WRONG_ID = "wrong id"
    DEEP_JSON = "deep json"
    TRUNCATED = "truncated"
    GARBAGE = "garbage"
    COMPRESSED = "compressed"
    ENDLESS_BODY = "endless body"
    RPC_ERROR = "rpc error"
    IS_ERROR = "is error"
    UNKNOWN_CONTENT = "unknown content"
    UNKNOWN_VERSION = "unknown version"
    SPOKEN = "spoken"
    SAMPLING = "sampling"
    LEAK_ERROR = "leak error"
    LEAK_BAD_JSON = "leak bad json"
    LEAK_QUESTION = "leak question"
    LEAK_TASK = "leak task"


Behaviour = Callable[["MockMcpServer", McpRequest, Wire], Awaitable[bool]]


async def _reset_now(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    reset(wire.writer)
    return False


async def _close(_server: MockMcpServer, _request: McpRequest, _wire: Wire) -> bool:
    return False


async def _hang(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.gone()
    return False


async def _sse_hang(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    await wire.progress(request, 1)
    await wire.gone()
    return False


async def _sse_comments(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.sse()

    async def forever() -> None:
        while True:
            await wire.raw(b": still here\n\n")
            await asyncio.sleep(0.02)

    with suppress(ConnectionError):
        await wire.unless_gone(forever())
    wire.left = True
    return False


async def _sse_cut(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    await wire.progress(request, 1)
    return False


async def _sse_cut_in_event(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    await wire.progress(request, 1)
    await wire.raw(b'data: {"jsonrpc": "2.0", "id"')
    return False


async def _sse_drip(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.sse()

    async def forever() -> None:
        done = 0
        while True:
            done += 1
            await wire.progress(request, done)
            await asyncio.sleep(0.02)

    with suppress(ConnectionError):
        await wire.unless_gone(forever())
    wire.left = True
    return False


async def _sse_flood(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    for done in range(1, 5_001):
        await wire.progress(request, done)
    await wire.event({"jsonrpc": "2.0", "id": request.id, "result": text("flooded")})
    return False


async def _sse_log_flood(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    for number in range(2_000):
        params = {"level": "info", "logger": "mock", "data": f"line {number}"}
        await wire.event({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
    await wire.event({"jsonrpc": "2.0", "id": request.id, "result": text("flooded")})
    return False


async def _sse_bad_json(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    await wire.raw(b"data: {not json\n\n")
    await wire.gone()
    return False


async def _sse_wrong_id(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    await wire.event({"jsonrpc": "2.0", "id": "somebody else's", "result": text("fine")})
    return False


async def _sse_endless_event(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    await wire.raw(b"data: ")
    with suppress(ConnectionError):
        while True:
            await wire.raw(CHUNK)
    wire.left = True
    return False


async def _endless_body(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    size = 100 * 1024 * 1024
    await wire.raw(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode())
    await wire.raw(json.dumps({"jsonrpc": "2.0", "id": request.id, "result": ""})[:-2].encode())
    with suppress(ConnectionError):
        for _ in range(size // len(CHUNK)):
            await wire.raw(CHUNK)
    wire.left = True
    return False


def _status(status: int, headers: str = "") -> Behaviour:
    return _body(b"no <b>way</b>", kind="text/html", status=status, headers=headers)


def _body(body: bytes, *, kind: str = "application/json", status: int = 200, headers: str = "") -> Behaviour:
    async def behave(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
        await wire.send(status, body, kind=kind, headers=headers)
        return True

    return behave


def _result(result: Json) -> Behaviour:
    async def behave(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
        await wire.result(request, result)
        return True

    return behave


async def _limited_json(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.error(request, -31_029, "slow down", {"why": "quota"}, status=429, headers="Retry-After: 7\r\n")
    return True


async def _limited_once(server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    if server.calls[request.tool] == 1:
        await wire.send(429, b"", headers="Retry-After: 0\r\n")
    else:
        await wire.result(request, text("second time"))
    return True


async def _redirect_here(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    if request.path.endswith("/"):
        await wire.result(request, text("fine"))
    else:
        await wire.send(307, b"", headers=f"Location: {request.path}/\r\n")
    return True


async def _wrong_id(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.send(200, json.dumps({"jsonrpc": "2.0", "id": 987_654, "result": text("fine")}).encode())
    return True


async def _deep_json(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    deep = "[" * 100_000 + "]" * 100_000
    await wire.send(200, f'{{"jsonrpc":"2.0","id":{json.dumps(request.id)},"result":{{"content":{deep}}}}}'.encode())
    return True


async def _truncated(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"jsonrpc":')
    return False


async def _garbage(_server: MockMcpServer, _request: McpRequest, wire: Wire) -> bool:
    await wire.raw(b"\x00\x01 this is not HTTP\r\n\r\n")
    return False


async def _rpc_error(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.error(request, -32_000, "the database is on fire")
    return True


async def _spoken(server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    """Says numbers in the messages of its progress, as many as the argument `words` says, and `pad` characters with each."""
    await wire.sse()
    arguments = request.body["params"]["arguments"]
    pad = "." * int(arguments.get("pad", 0))
    for number in range(int(arguments.get("words", 10))):
        await wire.progress(request, number, f"word {number} {pad}\n")
    server.said_all.set()
    await wire.event({"jsonrpc": "2.0", "id": request.id, "result": text("said")})
    return False


async def _sampling(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    """Asks for what nobody offers, in the manner of the new protocol."""
    message = {"role": "user", "content": {"type": "text", "text": "think for me"}}
    question = {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 10}}
    await wire.result(request, {"resultType": "input_required", "inputRequests": {"q": question}})
    return True


def _leaked(request: McpRequest) -> str:
    return json.dumps([dict(request.headers), request.path])


async def _leak_error(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.error(request, -32_000, _leaked(request), {"data": _leaked(request)}, status=500)
    return True


async def _leak_bad_json(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.sse()
    params = {"level": _leaked(request), "data": _leaked(request)}
    await wire.event({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
    await wire.progress(request, 1, _leaked(request))
    await wire.raw(f"data: {{{_leaked(request)}\n\n".encode())
    await wire.gone()
    return False


async def _leak_question(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    """Asks with its secrets in the question and in the state, which it wants back as it was."""
    params, state = request.body["params"], _leaked(request)[:1_000]
    if "requestState" in params:
        right = request.headers["authorization"] in params["requestState"]
        await wire.result(request, text("the state came back" if right else "the state is another"))
        return True
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    question = {"method": "elicitation/create", "params": {"message": state, "requestedSchema": schema}}
    asked = {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": state}
    await wire.result(request, asked)
    return True


async def _leak_task(_server: MockMcpServer, request: McpRequest, wire: Wire) -> bool:
    await wire.result(request, {"resultType": "task", **task_of(request, "working")})
    return True


def task_of(request: McpRequest, status: str) -> Json:
    """The task that `LEAK_TASK` makes of a call; its id is the secret that the call came with."""
    when = "2026-11-26T00:00:00Z"
    about = {"taskId": request.headers["authorization"], "status": status, "statusMessage": _leaked(request)}
    return {**about, "createdAt": when, "lastUpdatedAt": when, "ttlMs": None, "pollIntervalMs": 20}


FAULTS: Final[Mapping[McpFault, Behaviour]] = {
    McpFault.RESET: _reset_now,
    McpFault.CLOSE: _close,
    McpFault.HANG: _hang,
    McpFault.SSE_HANG: _sse_hang,
    McpFault.SSE_COMMENTS: _sse_comments,
    McpFault.SSE_CUT: _sse_cut,
    McpFault.SSE_CUT_IN_EVENT: _sse_cut_in_event,
    McpFault.SSE_DRIP: _sse_drip,
    McpFault.SSE_FLOOD: _sse_flood,
    McpFault.SSE_LOG_FLOOD: _sse_log_flood,
    McpFault.SSE_BAD_JSON: _sse_bad_json,
    McpFault.SSE_WRONG_ID: _sse_wrong_id,
    McpFault.SSE_ENDLESS_EVENT: _sse_endless_event,
    McpFault.UNAUTHORIZED: _status(401, CHALLENGE),
    McpFault.FORBIDDEN: _status(403),
    McpFault.NOT_FOUND: _status(404),
    McpFault.TOO_LARGE: _status(413),
    McpFault.RATE_LIMITED: _status(429, "Retry-After: 7\r\n"),
    McpFault.RATE_LIMITED_JSON: _limited_json,
    McpFault.RATE_LIMITED_ONCE: _limited_once,
    McpFault.INTERNAL: _status(500),
    McpFault.BAD_GATEWAY: _status(502),
    McpFault.UNAVAILABLE: _status(503, "Retry-After: 7\r\n"),
    McpFault.REDIRECT_AWAY: _status(307, "Location: http://198.51.100.1/mcp\r\n"),
    McpFault.REDIRECT_HERE: _redirect_here,
    McpFault.LOGIN_PAGE: _body(b"<form>log in</form>", kind="text/html"),
    McpFault.ACCEPTED: _body(b"", status=202),
    McpFault.NOT_JSON: _body(b"{not json"),
    McpFault.WRONG_ID: _wrong_id,
    McpFault.DEEP_JSON: _deep_json,
    McpFault.TRUNCATED: _truncated,
    McpFault.GARBAGE: _garbage,
    McpFault.COMPRESSED: _body(b"\x1f\x8b\x08\0", headers="Content-Encoding: gzip\r\n"),
    McpFault.ENDLESS_BODY: _endless_body,
    McpFault.RPC_ERROR: _rpc_error,
    McpFault.IS_ERROR: _result({**text("broken"), "isError": True}),
    McpFault.SPOKEN: _spoken,
    McpFault.SAMPLING: _sampling,
    McpFault.LEAK_ERROR: _leak_error,
    McpFault.LEAK_BAD_JSON: _leak_bad_json,
    McpFault.LEAK_QUESTION: _leak_question,
    McpFault.LEAK_TASK: _leak_task,
    McpFault.UNKNOWN_CONTENT: _result({"content": [{"type": "hologram", "x": 1}], "resultType": "complete"}),
}
