"""Health for those who watch over the process: alive, ready, and the metrics.

The composition root mounts `routes`. A probe reads and never changes anything; it tells reasons, and nothing of anybody's
streams.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from unbroken.errors import NotFoundError, StoreError
from unbroken.identity import Principal
from unbroken.server.resource import json_response

if TYPE_CHECKING:
    from starlette.requests import Request

    from unbroken.server.services import Services

__all__ = ["routes"]

OPERATOR: Final = ("local", "local", None)
"""Who may see the metrics: they are of everybody's streams."""
PROBE: Final = "readyz"
"""The name that the readiness probe asks the store for; whether there is such a stream does not matter."""


def routes(services: Services) -> list[BaseRoute]:
    """`/livez`, `/readyz` and `/metrics`."""

    async def livez(_request: Request) -> Response:
        return json_response({"alive": True})

    async def readyz(_request: Request) -> Response:
        reasons = await _reasons(services)
        return json_response({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(request: Request) -> Response:
        principal = await services.callers.principal(request.headers, request.scope)
        if (principal.tenant, principal.subject, principal.grants) != OPERATOR:
            raise NotFoundError("there is no such path")
        return Response(services.metrics.expose(), media_type=CONTENT_TYPE_PLAIN_1_0_0)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


async def _reasons(services: Services) -> list[dict[str, str]]:
    """Why no work should be sent here now; empty when it should."""
    if not services.started:
        return [_reason("lifespan", "the server has not started, or has stopped")]
    reasons: list[dict[str, str]] = []
    if services.draining:
        reasons.append(_reason("draining", "the server is shutting down"))
    if services.log.degraded is not None:
        reasons.append(_reason(services.log.degraded.code, "nothing can be written"))
    seconds = services.limits.ready_seconds_max
    try:
        async with asyncio.timeout(seconds):
            await services.store.get(Principal(), PROBE)
    except TimeoutError:
        reasons.append(_reason("store_unavailable", f"the store did not answer within {seconds:g} s"))
    except StoreError as error:
        reasons.append(_reason(error.code, "the store cannot be read"))
    return reasons


def _reason(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}
