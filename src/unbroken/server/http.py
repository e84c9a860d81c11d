"""The table of the native HTTP face: one row per path of PROTOCOL.md 2.

The composition root mounts `routes`; the handlers are in the `http_*` modules. Nothing is handled here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from unbroken.server import (
    http_access,
    http_content,
    http_messages,
    http_runs,
    http_sessions,
    http_streams,
    http_tokens,
    openapi,
)
from unbroken.server.resource import Handler, Resource

if TYPE_CHECKING:
    from unbroken.server.services import Services

__all__ = ["routes"]


def routes(services: Services, *, takeover: bool = True) -> list[BaseRoute]:
    """Every path of the native HTTP face, relative to where the application is mounted."""
    table: dict[str, dict[str, Handler]] = {
        "/v1/streams": {"GET": http_streams.list_streams},
        "/v1/streams/{name:path}": {
            "GET": http_streams.get_stream,
            "PUT": http_streams.put_stream,
            "DELETE": http_streams.delete_stream,
        },
        "/v1/messages/{name:path}": {
            "GET": http_messages.message_reader(services, takeover=takeover),
            "POST": http_messages.append_messages,
        },
        "/v1/content/{name:path}": {"GET": http_content.content_reader(services)},
        "/v1/close/{name:path}": {"POST": http_streams.close_stream},
        "/v1/cancel/{name:path}": {"POST": http_streams.cancel_stream},
        "/v1/lease/{name:path}": {"POST": http_streams.lease_stream},
        "/v1/pause/{name:path}": {"POST": http_streams.pause_stream},
        "/v1/resume/{name:path}": {"POST": http_streams.resume_stream},
        "/v1/trim/{name:path}": {"POST": http_streams.trim_stream},
        "/v1/verify/{name:path}": {"GET": http_streams.verify_stream},
        "/v1/runnables": {"GET": http_runs.list_runnables},
        "/v1/runs": {"POST": http_runs.start_run},
        "/v1/runs/{name:path}": {"GET": http_runs.get_run},
        "/v1/retry/{name:path}": {"POST": http_runs.retry_run},
        "/v1/answer/{name:path}": {"POST": http_runs.answer_run},
        "/v1/sessions": {"GET": http_sessions.list_sessions},
        "/v1/sessions/{name:path}": {
            "GET": http_sessions.get_session,
            "PUT": http_sessions.put_session,
            "DELETE": http_sessions.delete_session,
        },
        "/v1/session-streams/{name:path}": {"GET": http_sessions.session_streams},
        "/v1/session-messages/{name:path}": {"GET": http_sessions.session_messages},
        "/v1/tokens": {"GET": http_tokens.list_tokens, "POST": http_tokens.make_token},
        "/v1/tokens/{name}": {"DELETE": http_tokens.delete_token},
        "/v1/tickets": {"POST": http_access.issue_ticket},
        "/v1/logout": {"POST": http_access.log_out},
        "/v1/erasures": {"POST": http_streams.erase},
        "/v1/openapi.json": {"GET": openapi.read_openapi},
    }
    return [Route(path, Resource(services, handlers), name=path) for path, handlers in table.items()]
