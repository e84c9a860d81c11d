"""The real server, for every test of this folder that asks for it."""

from __future__ import annotations

from tests.support.emptied import shared
from tests.support.server import server

__all__ = ["server", "shared"]
