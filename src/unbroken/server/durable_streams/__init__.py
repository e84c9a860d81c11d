"""The Durable Streams face: the public HTTP protocol of that name, served from the same streams as every other face.

The composition root mounts `routes(services)`. What the protocol calls an offset, a producer or a closed stream is
translated here and nowhere else; the package holds no state of its own.
"""

from __future__ import annotations

from unbroken.server.durable_streams.routes import routes

__all__ = ["routes"]
