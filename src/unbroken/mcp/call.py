"""One tool call as a run: what is sent is written down first, what comes back is stored, and every end is one of a few.

The supervisor executes it and enforces its deadlines. Before `sent` is durable nothing of the call has left; after it, a
call is made again only where that is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from unbroken.mcp.client import McpClient
from unbroken.mcp.failures import Failure, FailureClass
from unbroken.mcp.following import Following
from unbroken.mcp.journal import Journal
from unbroken.mcp.questions import (
    METHOD_CHARACTERS_MAX,
    Round,
    answer_of,
    elicitation,
    identity,
    question_of,
    round_of,
    saved_round,
)
from unbroken.mcp.recovery import recovery_of, saved_task
from unbroken.mcp.results import completed
from unbroken.mcp.tools import Tool
from unbroken.messages import StreamState
from unbroken.runs.catalog import Recovery
from unbroken.runs.context import RunContext, RunEnded
from unbroken.runs.history import History
from unbroken.runs.items import Item

if TYPE_CHECKING:
    from unbroken.mcp.sdk import Session

__all__ = ["ToolCall"]

RETRY_SECONDS: Final = 1.0
INVALID_PARAMS: Final = -32602
Object = dict[str, object]


class ToolCall:
    """A tool of one server with its arguments; the `Runnable` of a run of type `tool`."""

    def __init__(self, client: McpClient, name: str, arguments: Mapping[str, object]) -> None:
        self._client = client
        self._name = name
        self._arguments = dict(arguments)
        options = client.config.options
        self.idle_seconds: float | None = options.idle_seconds
        self.total_seconds: float | None = options.total_seconds
        self.retries = client.limits.mcp_retries_max
        self.retry_seconds = RETRY_SECONDS

    def recover(self, history: History) -> Recovery:
        """As `recovery_of`."""
        return recovery_of(history)

    def execute(self, context: RunContext) -> AsyncIterator[Item]:
        """Make the call, or go on with it; ends by raising `RunEnded`. It yields nothing: all it says are control messages.

        Cancelled, it tells the server, and leaves a process that it had for itself.
        """
        return _Execution(self._client, self._name, self._arguments, context)


class _Execution:
    """One execution of one call; the `Listener` of its session."""

    def __init__(self, client: McpClient, name: str, arguments: Object, context: RunContext) -> None:
        self._client = client
        self._name = name
        self._base: Object = {"name": name, "arguments": arguments}
        self._context = context
        self._journal = Journal(context, client.redact)
        self._speaks = name in client.config.options.output_from_progress
        self._place = client.place()
        self._tool: Tool | None = None
        self._sent = False
        self._elicited = 0

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        raise await self._run()

    async def _run(self) -> RunEnded:
        """Connect, call or go on, and say how it ended."""
        context, task = self._context, saved_task(self._context.history)
        try:
            async with AsyncExitStack() as stack:
                with context.waiting():
                    await stack.enter_async_context(self._place)
                    session = await stack.enter_async_context(self._client.session(self))
                return await self._listening(self._follow(session) if task is not None else self._call(session))
        except Failure as failure:
            return self._failed(failure)

    async def _listening(self, work: Coroutine[None, None, RunEnded]) -> RunEnded:
        """`work`, while what the server logs is stored; all of it is, before the end."""
        failure: Failure | None = None
        ended: RunEnded | None = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._journal.run())
            try:
                ended = await work
            except Failure as raised:
                failure = raised
            finally:
                self._journal.close()
        if failure is not None:
            raise failure
        assert ended is not None
        return ended

    # --- the call ------------------------------------------------------------------------------------------------------

    async def _call(self, session: Session) -> RunEnded:
        with self._context.waiting():
            tools = await self._client.tools(session)
            self._tool = tools.get(self._name)
            if self._tool is not None and self._tool.headers and session.transport == "http":
                await session.list_tools()
        begun = saved_round(self._context.history)
        params = self._base if begun is None else await self._answered(begun)
        for _ in range(self._context.limits.mcp_input_rounds_max):
            result = await self._request(session, params)
            if result is None:
                params = self._base
                continue
            kind = result.get("resultType", "complete")
            if kind == "task":
                return await self._follow(session, result)
            if kind != "input_required":
                return await completed(self._context, self._tool, result)
            params = await self._answered(
                round_of(result, self._context.history.sent, self._context.limits, self._client.redact)
            )
        most = self._context.limits.mcp_input_rounds_max
        raise Failure(kind=FailureClass.BAD_RESPONSE, message=f"the server asked more than {most} times", answered=True)

    async def _request(self, session: Session, params: Object) -> Object | None:
        """The result of one `tools/call`, written down before it is sent; None when the server knows its state no more."""
        self._sent = False
        if session.ended:
            raise Failure(kind=FailureClass.TRANSPORT, message="the server's process has ended", executed=False)
        await self._context.put("sent", self._told(session))
        await self._context.durable()
        self._sent = True
        try:
            return await session.request("tools/call", params, self._progress)
        except Failure as failure:
            if failure.code == INVALID_PARAMS and "requestState" in params:
                return None
            raise

    def _told(self, session: Session) -> Object:
        options = self._client.config.options
        known = self._tool
        return {
            "attempt": self._context.attempt,
            "transport": session.transport,
            "protocol_version": session.protocol_version,
            "server": session.server,
            "annotations": {} if known is None else dict(known.hints),
            "repeatable": self._repeatable if known is not None else options.retry == "always",
        }

    @property
    def _repeatable(self) -> bool:
        options = self._client.config.options
        return options.retry == "always" if self._tool is None else self._tool.repeatable(options)

    async def _follow(self, session: Session, created: Object | None = None) -> RunEnded:
        """Follow the task that the server made of the call."""
        if self._tool is None:
            self._tool = (self._client.known_tools or {}).get(self._name)
        self._sent = True
        return await Following(self._context, session, self._ask, self._client.redact).run(self._tool, created)

    # --- what the server says and asks -----------------------------------------------------------------------------------

    def _progress(self, told: Object) -> None:
        done, total = told["done"], told["total"]
        assert isinstance(done, int | float)
        message = str(told["message"])
        if self._speaks:
            self._journal.output(message)
            message = ""
        self._context.note_progress(float(done), float(total) if isinstance(total, int | float) else None, message)

    def log(self, level: str, logger: str, data: object) -> None:
        """As `Listener.log`."""
        self._journal.log(level, logger, data)

    def missed(self) -> None:
        """As `Listener.missed`."""
        self._journal.missed()

    def refused(self, method: str) -> None:
        """As `Listener.refused`."""
        text = (
            f"the server asked for {method[:METHOD_CHARACTERS_MAX]}, which this client does not offer; it was refused"
        )
        self._journal.log("warning", "unbroken", text)

    async def elicit(self, params: Object) -> Object:
        """As `Listener.elicit`: the question of a server that waits for the answer with its connection open."""
        self._elicited += 1
        response = await self._ask(identity(params, self._elicited), elicitation(params))
        return answer_of(params, response)

    async def _answered(self, begun: Round) -> Object:
        """The call once more, with the answers to a round of questions."""
        responses: Object = {}
        ids = begun.ids()
        for number, (key, request) in enumerate(begun.requests.items()):
            extra: Object = {"round": begun.stored(self._client.redact)} if number == 0 else {}
            response = await self._ask(ids[key], {**question_of(request), **extra})
            responses[key] = answer_of(request, response)
        if not begun.requests:
            await asyncio.sleep(self._context.limits.mcp_poll_seconds_min)
        again: Object = {**self._base, "inputResponses": responses} if responses else dict(self._base)
        if begun.state is not None:
            again["requestState"] = begun.state
        return again

    async def _ask(self, key: str, question: Object) -> object:
        """The answer to a question; the call gives its place to another one meanwhile."""
        with self._context.waiting():
            async with self._place.aside():
                return await self._context.ask(question, id=key)

    # --- how it ends ---------------------------------------------------------------------------------------------------

    def _failed(self, failure: Failure) -> RunEnded:
        """The end that a failure is, and whether another execution may change it."""
        limits = self._context.limits
        body = failure.body(
            self._client.redact,
            text_bytes_max=limits.mcp_error_text_bytes_max,
            stderr_bytes_max=limits.mcp_stderr_told_bytes_max,
        )
        body["attempt"] = self._context.attempt
        reason = {name: value for name, value in body.items() if name in {"class", "code", "http_status"}}
        after = failure.retry_after or 0.0
        ran, known_end = self._may_have_run(failure), failure.answered
        if not ran:
            return RunEnded(
                StreamState.FAILED,
                body,
                reason=reason,
                retryable=_curable(failure, sent=self._sent),
                after_seconds=after,
            )
        told = {**body, "may_have_run": True}
        if saved_task(self._context.history) is not None:
            if not failure.passing:
                return RunEnded(StreamState.FAILED, told, reason=reason)
            return RunEnded(StreamState.INTERRUPTED, told, reason=reason, retryable=True, after_seconds=after)
        retry = failure.passing and self._repeatable
        told["repeatable"] = self._repeatable
        if known_end or failure.kind is not FailureClass.TRANSPORT:
            body = told if failure.passing else body
            return RunEnded(StreamState.FAILED, body, reason=reason, retryable=retry, after_seconds=after)
        reason["may_have_run"] = True
        return RunEnded(StreamState.INTERRUPTED, told, reason=reason, retryable=retry, after_seconds=after)

    def _may_have_run(self, failure: Failure) -> bool:
        """Whether the tool may have run: it was sent, and neither the connection nor the server says that it was not."""
        if not self._sent or not failure.executed:
            return False
        if failure.kind in {FailureClass.RATE_LIMITED, FailureClass.AUTH} or failure.http_status == 404:
            return False
        return not (failure.http_status == 503 and failure.retry_after is not None)


def _curable(failure: Failure, *, sent: bool) -> bool:
    """Whether an execution that did not get through may get through later: not where somebody has to change something."""
    if failure.kind in {FailureClass.AUTH, FailureClass.PROTOCOL_MISMATCH, FailureClass.TOO_LARGE}:
        return False
    return failure.passing or (sent and failure.http_status == 404)  # a session that the server has forgotten
