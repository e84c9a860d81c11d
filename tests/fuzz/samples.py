"""Owns what is right, from which fuzzing makes what is nearly right: frames, headers, files and rows of every kind.

The targets use it. Nothing here is a secret: the tokens are signed with a key that is written down beside them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from typing import Any, Final

import msgspec

from unbroken.checkpoints.checkpoint import Checkpoint
from unbroken.checkpoints.merkle import MerkleRange
from unbroken.checkpoints.notes import Signer
from unbroken.client.spill import MAGIC, SpillAppend, SpillHeader, SpillTarget
from unbroken.messages import NewMessage
from unbroken.store import chunks
from unbroken.store.chunks import ChunkRow, key_seq

VIEW: Final = {
    "stream": "a", "epoch": 7, "state": "running", "first": 1, "head": 3, "cursor": "7:3", "kind": "run",
    "content_type": "application/json", "created": 1, "updated": 2, "bytes": 3, "hash": "ab" * 32,
}  # fmt: skip
HELLO: Final = {
    "type": "hello", "protocol": "unbroken.v1", "server": "s", "connection": "c", "heartbeat_seconds": 15.0,
    "frame_bytes_max": 1_048_576, "message_bytes_max": 262_144,
}  # fmt: skip
_PRODUCER: Final = {"id": "p", "epoch": 1, "seq": 2}
PROBLEM: Final = {
    "status": 404,
    "title": "t",
    "code": "not_found",
    "detail": "d",
    "retryable": False,
    "facts": {"a": 1},
}
MESSAGES: Final = (
    {"text": "x"},
    {"kind": "progress", "json": {"a": [1, 2.5, None, "\u00e4"]}},
    {"kind": "k", "data": "AAEC"},
    {"text": "x", "continues": True},
)
CLIENT_FRAMES: Final = (
    {"type": "subscribe", "id": 1, "stream": "a", "after": "7:3"},
    {"type": "unsubscribe", "stream": "a"},
    {"type": "pause", "stream": "a"},
    {"type": "resume", "stream": "a"},
    {
        "type": "create",
        "id": 2,
        "stream": "a",
        "kind": "run",
        "lease": _PRODUCER,
        "ttl_seconds": 5,
        "metadata": {"a": 1},
    },
    {"type": "append", "id": 3, "stream": "a", "messages": list(MESSAGES), "producer": _PRODUCER, "expected_head": 4},
    {"type": "append", "id": 3, "stream": "a", "messages": [], "close": {"state": "failed", "reason": {"error": "x"}}},
    {"type": "cancel", "id": 4, "stream": "a"},
    {"type": "lease", "id": 5, "stream": "a", "producer": _PRODUCER, "seconds": 0.5},
    {"type": "start", "id": 6, "task": "t", "arguments": {"a": 1}, "name": "r", "session": "s", "key": "k"},
    {"type": "retry", "id": 7, "stream": "r"},
    {"type": "answer", "id": 8, "stream": "r", "question": "q", "response": {"a": [1]}},
    {"type": "auth", "id": 9, "token": "t"},
    {"type": "heartbeat"},
)
SERVER_FRAMES: Final = (
    HELLO,
    {"type": "subscribed", "id": 1, "stream": "a", "view": VIEW, "cursor": "7:0", "head": 3, "state": "running"},
    {"type": "messages", "stream": "a", "epoch": 7, "first": 1, "hash": "ab" * 32, "messages": [*MESSAGES[:2]]},
    {"type": "state", "stream": "a", "view": VIEW},
    {"type": "ack", "id": 3, "first": 1, "last": 2, "head": 2, "state": "open", "duplicate": False, "cursor": "7:2"},
    {"type": "acks", "acks": [[3, 1, 2]]},
    {"type": "result", "id": 2, "view": VIEW, "created": True},
    {
        "type": "error",
        "code": "overloaded",
        "message": "x",
        "retryable": True,
        "id": 3,
        "stream": "a",
        "detail": {"a": 1},
    },
    {"type": "notice", "code": "degraded", "message": "x"},
    {"type": "goodbye", "code": "draining", "retry_after_seconds": 1.0},
    {"type": "heartbeat"},
    {"type": "no such type", "x": 1},
)
EVENTS: Final = (
    b": welcome\nretry: 1000\n\nid: 7:1\nevent: message\ndata: {}\ndata: x\n\n",
    b"\xef\xbb\xbfdata\r\ndata:\r\rid: a\x00b\nid\n\nretry: 9x\nfield: y\n\n",
    b"data: " + b"x" * 4_000 + b"\n\n",
)


def _wire(first: int, payload: bytes = b"", *, width: int = 0, masked: bool = True) -> bytes:
    """A frame (RFC 6455, section 5.2) with this first byte, and its length in `width` further bytes."""
    length = {0: len(payload), 2: 126, 8: 127}[width]
    mask = b"\x11\x22\x33\x44" if masked else b""
    changed = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if masked else payload
    return bytes([first, (0x80 if masked else 0) | length]) + len(payload).to_bytes(8)[8 - width :] + mask + changed


WIRE_FRAMES: Final = {
    "text": _wire(0x81, b'{"type":"heartbeat"}'),
    "empty text": _wire(0x81),
    "the longest short text": _wire(0x81, b"x" * 125),
    "text of two bytes' length": _wire(0x81, b"x" * 310, width=2),
    "text with a longer length than it needs": _wire(0x81, b"abc", width=2),
    "text of eight bytes' length": _wire(0x81, b"x" * 140, width=8),
    "text that is none": _wire(0x81, b"\xff\xfe"),
    "text without a mask": _wire(0x81, b"abc", masked=False),
    "text of an extension": _wire(0xC1, b"abc"),
    "binary": _wire(0x82, b"abc"),
    "first": _wire(0x01, b"abc"),
    "further": _wire(0x00, b"de"),
    "last": _wire(0x80, b"fg"),
    "ping": _wire(0x89, b"abc"),
    "long ping": _wire(0x89, b"x" * 126, width=2),
    "ping in parts": _wire(0x09),
    "pong": _wire(0x8A),
    "close": _wire(0x88, b"\x03\xe8bye"),
    "close without a code": _wire(0x88),
    "close with half a code": _wire(0x88, b"\x03"),
    "no kind of frame": _wire(0x83, b"abc"),
}
HEADER_NAMES: Final = (
    *(
        "content-type",
        "stream-ttl",
        "stream-expires-at",
        "stream-closed",
        "stream-seq",
        "stream-forked-from",
        "if-none-match",
    ),
    *("stream-fork-offset", "stream-fork-sub-offset", "producer-id", "producer-epoch", "producer-seq", "stream-state"),
)
HEADER_VALUES: Final = (
    *("application/json; charset=utf-8", "text/plain", "3600", "2030-01-01T00:00:00Z", "true", "/v1/stream/a", "W/\"1\", *"),
    *("0000000000000007_0000000000000120", "127.0.0.1:4437", "[::1]:80", "https://a.example:443", "null", "same-origin"),
    *("9999-12-31T23:59:59.999999999+23:59", "0001-01-01T00:00:00-23:59", "b.example", "http://user@a.example/x?y#z"),
)  # fmt: skip

_SECRET: Final = b"written down here, so it is none: "
JWKS: Final = {
    "keys": [
        {"kty": "oct", "kid": "k", "alg": "HS256", "k": base64.urlsafe_b64encode(_SECRET * 2).rstrip(b"=").decode()}
    ]
}
CLAIMS: Final = {"iss": "https://id.example", "aud": ["unbroken"], "sub": "u", "exp": 2, "nbf": 0, "iat": 0, "jti": "j"}
FAR_CLAIMS: Final = tuple(
    {**CLAIMS, name: far} for name in ("exp", "nbf", "iat") for far in (10**400, -(10**400), 2**43)
)
"""Times beyond every clock, and beyond every number that a float can hold."""


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(payload: bytes) -> str:
    """A token with a good signature, whatever it says."""
    body = _part(b'{"alg":"HS256","typ":"JWT","kid":"k"}') + b"." + _part(payload)
    return (body + b"." + _part(hmac.new(_SECRET * 2, body, hashlib.sha256).digest())).decode()


TOKEN: Final = signed(json.dumps(CLAIMS).encode())

_HEADER: Final = SpillHeader(run="r", stream="a", server="http://127.0.0.1:1", session=None, program="p", started=1)
_RECORDS: Final = (
    _HEADER,
    SpillTarget(stream="a", base=0),
    SpillAppend(seq=1, messages=[NewMessage(text="x")]),
)
SPILL_RECORDS: Final = tuple(msgspec.to_builtins(record) for record in _RECORDS)


def spilled(*payloads: bytes) -> bytes:
    """A spill file of these records, each with its length and checksum."""
    frames = [len(one).to_bytes(4, "big") + zlib.crc32(one).to_bytes(4, "big") + one for one in payloads]
    return MAGIC + b"".join(frames)


SPILL: Final = spilled(*[msgspec.json.encode(record) for record in _RECORDS])

MCP: Final = (
    {"mcpServers": {"a": {"command": "x", "args": ["-y", "${HOME}${env:HOME}"], "env": {"K": "${NONE:-d}"}, "timeout": 5}}},
    {"servers": {"b": {"type": "http", "url": "https://b.example/mcp", "headers": {"X": "${input:k}"}, "public": ["X"]}},
     "inputs": [{"id": "k", "type": "promptString", "default": "d", "password": True}]},
    {"mcpServers": {"c": {"url": "http://127.0.0.1:1/", "headersHelper": ["x", "y"], "trust": True}}},
)  # fmt: skip
PROGRAMS: Final = {
    "programs": {"p": {"command": ["x"], "title": "t", "env": {"A": "b"}, "idle_seconds": 1.5, "cwd": "/"}}
}

PAGE: Final = (
    b"\x0d\x00\x00\x00\x02\x0f\xe0\x00\x0f\xf0\x0f\xe0".ljust(0xFE0, b"\0")
    + b"\x0e\x02\x04\x01\x13\x01abc".ljust(16, b"\0")
    + b"\xa0\x00\x01\x03\x81\x00\x0e".ljust(16, b"\x02")
)
"""A leaf of a table with two rows, one of them with a rest on other pages."""


def with_checksum(row: ChunkRow) -> ChunkRow | None:
    """`row` as somebody would write it who knows how; None when it cannot be written at all."""
    try:
        size = (row.n, row.flags)
        stream, marks = row.key >> chunks.SEQ_BITS, row.marks or b""
        crc = chunks._checksum(stream, key_seq(row.key), size, row.hash, row.body, marks)
    except (OverflowError, ValueError):
        return None
    return None if crc is None else row._replace(crc=crc)


def as_bytes(frame: Any) -> bytes:
    """A frame as it travels."""
    return json.dumps(frame).encode()


SIGNER: Final = Signer("example.org/log", bytes(range(32)))
_TREE: Final = MerkleRange()
_TREE.extend([hashlib.sha256(bytes([number])).digest() for number in range(5)])
CHECKPOINT: Final = Checkpoint(
    log=SIGNER.name,
    epoch=7,
    base=0,
    tree=_TREE,
    head=b"h" * 32,
    time_ms=1_000,
    serial=1,
    previous=b"p" * 32,
    ended="completed",
).text()
NOTE: Final = SIGNER.sign(CHECKPOINT).encode()
