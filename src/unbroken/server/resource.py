"""A path of the native HTTP face: which methods it has, who may call them, and how query and body are read.

The `http_*` modules give it their handlers. It checks form only: what a value means is decided by `Streams` and
`StreamStateManager`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

from unbroken.errors import InvalidError
from unbroken.identity import Principal
from unbroken.messages import NUMBER_MAX
from unbroken.server.problems import method_not_allowed

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from unbroken.server.services import Services

__all__ = ["Body", "Call", "Handler", "Query", "Resource", "Whole", "decode", "json_response"]

Whole = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
"""A number that every client can hold exactly."""

T = TypeVar("T")
_DECIMAL: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")
_FIELD: Final = re.compile(r"(?:unknown|required) field `([^`]*)`")
_encoder = msgspec.json.Encoder()


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Common options of request bodies: an unknown field is an error that names it."""


def json_response(value: object, status: int = 200) -> Response:
    """`value` as a JSON response; bytes are taken as JSON already."""
    content = value if isinstance(value, bytes) else _encoder.encode(value)
    return Response(content, status, media_type="application/json")


class Query:
    """The query of one request; only `allowed` names, each at most once."""

    def __init__(self, raw: bytes, allowed: tuple[str, ...]) -> None:
        self._values: dict[str, str] = {}
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
        except ValueError:  # also for what is not ASCII or not UTF-8 behind its percent signs
            raise InvalidError("the query is not percent-encoded UTF-8", field="query") from None
        for name, value in pairs:
            if name not in allowed:
                raise InvalidError(f"unknown parameter {name[:64]!r}; known are {', '.join(allowed)}", field=name[:64])
            if name in self._values:
                raise InvalidError(f"the parameter {name} is there more than once", field=name)
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """The value, None when it is absent or empty."""
        return self._values.get(name) or None

    def whole(self, name: str, default: int) -> int:
        """The value as a number of at least 1, `default` when it is absent; an empty one is no number."""
        value = self._values.get(name)
        if value is None:
            return default
        if not _DECIMAL.fullmatch(value) or int(value) < 1:
            raise InvalidError(f"{name} is a whole number of at least 1", field=name)
        return int(value)

    def choice(self, name: str, values: Mapping[str, T]) -> T | None:
        """One of `values` by its name, None when it is absent; an empty one is none of them."""
        value = self._values.get(name)
        if value is None:
            return None
        if value not in values:
            raise InvalidError(f"{name} is one of {', '.join(values)}", field=name)
        return values[value]


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was let in, and on whose behalf."""

    services: Services
    principal: Principal
    scope: Scope
    receive: Receive
    held: ExitStack
    """Closed when the handler is done."""

    @property
    def name(self) -> str:
        """The NAME of the path; what it may be is checked further down."""
        name: str = self.scope["path_params"]["name"]
        return name

    @property
    def headers(self) -> Headers:
        return Headers(scope=self.scope)

    @property
    def head_only(self) -> bool:
        """Whether only the headers of the answer are wanted."""
        return bool(self.scope["method"] == "HEAD")

    def query(self, *allowed: str) -> Query:
        """The query, in which only `allowed` may be."""
        return Query(self.scope["query_string"], allowed)

    async def body(self, kind: type[T]) -> T:
        """The body as a `kind`; an empty one is an empty object. `InvalidError` names the field that does not fit."""
        return decode(await self.services.bodies.whole(self.receive, self.held, self.principal), kind)


Handler = Callable[[Call], Awaitable["ASGIApp"]]


class Resource:
    """The ASGI application of one path: authenticates, then calls the handler of the method.

    HEAD is GET without its body, OPTIONS says what there is.
    """

    def __init__(self, services: Services, handlers: Mapping[str, Handler]) -> None:
        self._services = services
        self._handlers = dict(handlers)
        if "GET" in self._handlers:
            self._handlers["HEAD"] = self._handlers["GET"]
        self._allowed = ", ".join([*self._handlers, "OPTIONS"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        if method == "OPTIONS":
            await Response(status_code=204, headers={"Allow": self._allowed})(scope, receive, send)
            return
        handler = self._handlers.get(method)
        if handler is None:
            await method_not_allowed(method, self._allowed)(scope, receive, send)
            return
        services = self._services
        principal = await services.callers.principal(Headers(scope=scope), scope)
        services.quotas.request(principal)
        with ExitStack() as held:
            call = Call(services, principal, scope, receive, held)
            response = await handler(call)
        await response(scope, receive, _without_body(send) if call.head_only else send)


def decode(body: bytes, kind: type[T]) -> T:
    """`body` as a `kind`, with errors that say where."""
    if not body.isascii():
        try:
            body.decode()  # what the decoder keeps raw it does not look at
        except UnicodeDecodeError:
            raise InvalidError("the body is not UTF-8", field="body") from None
    try:
        found: T = msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise InvalidError(str(error), field=_field_of(str(error))) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"the body is not valid JSON: {error}", field="body") from None
    return found


def _field_of(text: str) -> str:
    """The path of the field that msgspec complains about, such as `producer.seq`."""
    place, named = _PLACE.search(text), _FIELD.search(text)
    path = [part for part in (place and place[1], named and named[1]) if part]
    return ".".join(path) or "body"


def _without_body(send: Send) -> Send:
    async def headers_only(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return headers_only
