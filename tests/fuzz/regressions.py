"""Owns what fuzzing has found: for each target the inputs that once did what no input may.

The suite tries them first. An entry is as small as it was made; it stays when its defect is mended.
"""

from __future__ import annotations

import json
from typing import Any, Final

from tests.fuzz import samples
from unbroken.store.chunks import ChunkRow

__all__ = ["REGRESSIONS"]

_DEEP: Final = b'{"programs":{"p":{"command":["x"],"y":' + b"[" * 100_000
_APPEND: Final = b'{"type":"append","seq":1,"messages":[{"json":' + b"[" * 100_000

REGRESSIONS: Final[dict[str, list[Any]]] = {
    "MCP servers": [b'{"\x80mcpServers":{}}'],
    "answers": [b'{"code":"\x80"}', b'{"stream":"\x80"}'],
    "checkpoints": [
        samples.CHECKPOINT.replace("\ntime 1000\n", "\ntime 0999\n"),
        samples.CHECKPOINT.replace("aGg=\nrange", "aGh=\nrange"),  # bits that stand for nothing
    ],
    "claims": [json.dumps(claims).encode() for claims in samples.FAR_CLAIMS],
    "chunks": [ChunkRow(0, 0, 1, 0, b"h" * 32, b"no zlib")],
    "key sets": [
        b'{"keys":[{"kty":"oct","alg":"HS256"},{"kty":"RSA"},{"kty":"EC","crv":"P-256"},{"kty":"OKP","crv":"Ed25519"}]}'
    ],
    "pages": [
        b"\x0d\x00\x00\x00\x01\x00\x10\x00\x00\x10".ljust(16, b"\0")
        + b"\x87\xff\xff\xff\x7f\x01"
        + b"\0\0\0\x02" * 1_100,
        b"\x0d\x00\x00\xff\xff",
    ],
    "printed headers": [b'{"a":"\x80"}'],
    "program files": [_DEEP, b'{"programs":{"\x80":{"command":["x"]}}}'],
    "spill files": [samples.spilled(_APPEND), samples.spilled(b'{"type":"target","stream":"\x80","base":0}')],
    "verifier keys": [f"{samples.SIGNER.verifier}="],
}
