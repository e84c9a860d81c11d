"""The built-in page and its files, from inside the package.

The composition root mounts `routes` last: whatever no other face knows is answered here, with a problem document. Files
are read once when the routes are made, so no request ever reaches a file system.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from unbroken.errors import NotFoundError
from unbroken.server.headers import PAGE
from unbroken.server.problems import method_not_allowed

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from unbroken.server.services import Services

__all__ = ["routes"]

TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "ico": "image/x-icon",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "md": "text/plain; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json",
    "woff2": "font/woff2",
}
INDEX: Final = "index.html"
BINARY: Final = "application/octet-stream"
METHODS: Final = "GET, HEAD"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent: always revalidated, so that a new version of the package is seen at once."""

    content: bytes
    media_type: str
    etag: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        if method not in {"GET", "HEAD"}:
            await method_not_allowed(method, METHODS)(scope, receive, send)
            return
        headers = {**PAGE, "ETag": self.etag}
        if self._matches(Headers(scope=scope).get("if-none-match", "")):
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        response = Response(self.content, 200, {**headers, "Content-Type": self.media_type})
        if method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    def _matches(self, wanted: str) -> bool:
        tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
        return self.etag in tags or "*" in tags


def routes(_services: Services, root: Traversable | None = None) -> list[BaseRoute]:
    """`/` with the page, `/static/` with its files, and an answer for every path that nobody knows.

    `root` is the folder with the page; the package's own by default.
    """
    folder = root if root is not None else files("unbroken") / "web"
    assets = dict(_assets(folder)) if folder.is_dir() else {}
    found: list[BaseRoute] = [Route("/static/{path:path}", _Files(assets)), Route("/{path:path}", _Unknown())]
    return [Route("/", assets[INDEX]), *found] if INDEX in assets else found


class _Files:
    """The files below `/static/`, by their exact name in the package."""

    def __init__(self, assets: dict[str, Asset]) -> None:
        self._assets = assets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asset = self._assets.get(scope["path_params"]["path"])
        if asset is None:
            raise NotFoundError("there is no such file")
        await asset(scope, receive, send)


class _Unknown:
    """What no face knows."""

    async def __call__(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        raise NotFoundError("there is no such path")


def _assets(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Asset]]:
    """Every file below `folder` by its path; Python's own are left out."""
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _assets(entry, name + "/")
        elif not entry.name.endswith((".py", ".pyc")):
            content = entry.read_bytes()
            suffix = entry.name.rpartition(".")[2].lower()
            media_type = TYPES.get(suffix, "text/plain; charset=utf-8" if _is_licence(entry.name) else BINARY)
            yield name, Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _is_licence(name: str) -> bool:
    return name.startswith(("LICENSE", "NOTICE"))
