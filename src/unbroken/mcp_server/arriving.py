"""The bodies of agents' requests on their way in: bounded in time, in size, and in what all of them hold.

`transports` puts it in front of the SDK's application, behind whatever keeps strangers out. It looks at no content.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from unbroken.errors import UnbrokenError
from unbroken.server.bodies import Bodies
from unbroken.server.guard import Inbound, announces_more
from unbroken.server.problems import problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from unbroken.limits import Limits

__all__ = ["Arriving"]


class Arriving:
    """ASGI middleware: hands a request on when its body is whole.

    One that does not come in time is answered 408, and one of more than `agent_request_bytes_max` 413; the connection is
    closed then, as what is left of the body is not read.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = replace(limits, body_bytes_max=limits.agent_request_bytes_max)
        self._bodies = Bodies(None, None, self._limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or announces_more(Headers(scope=scope), self._limits.body_bytes_max):
            await self._app(scope, receive, send)  # which refuses what is announced too large, before any of it comes
            return
        with ExitStack() as held:
            try:
                body = await self._bodies.whole(Inbound(receive, self._limits, waits=False).receive, held)
            except ClientDisconnect:
                return
            except UnbrokenError as error:
                await problem_response(error)(scope, receive, send)
                return
            rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Message:
                return rest.pop() if rest else await receive()

            await self._app(scope, replay, send)
