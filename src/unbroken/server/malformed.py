"""HTTP requests that cannot be read, answered as every other error is.

`unbroken serve` gives `HttpProtocol` to uvicorn. An application that serves the routes itself keeps its own server's answer.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unbroken.errors import ProtocolError
from unbroken.server.headers import SECURITY
from unbroken.server.problems import problem_response

if TYPE_CHECKING:
    from starlette.responses import Response
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["HttpProtocol"]

logger = logging.getLogger(__name__)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, but for its answer to what is not HTTP, and for white space behind a header's value.

    Nothing is written into a response that is under way: its missing end tells. The white space is no part of the value (RFC
    9110, 5.5), and the parser leaves it there.
    """

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value.strip(b" \t"))

    def send_400_response(self, msg: str) -> None:
        logger.debug("a request could not be read: %s", msg)
        answering = cast("RequestResponseCycle | None", self.cycle)
        if answering is None or answering.response_complete:
            problem = problem_response(ProtocolError("this is not a request of HTTP/1.1"), headers=SECURITY)
            self.transport.write(_whole(problem))
        self.transport.close()


def _whole(response: Response) -> bytes:
    """`response` as it goes over the wire, the last one of its connection."""
    status = HTTPStatus(response.status_code)
    lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode())]
    lines += [b"%b: %b" % header for header in [*response.raw_headers, (b"connection", b"close")]]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
