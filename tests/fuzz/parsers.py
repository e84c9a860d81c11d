"""Owns the targets that are functions: what each is fed, and what may come of it.

`targets` gathers them. A parser gives a value or an error of ours; anything else is a defect.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from hypothesis import strategies as st

from tests.fuzz import samples
from tests.fuzz.shapes import json_near, near, pieces, text_near
from tests.support.two_readers import SIZES_MAX, read_by_both
from unbroken.auth.access import Access
from unbroken.auth.jwks import read_keys
from unbroken.auth.jwt import JwtRules, head_of, verify
from unbroken.checkpoints.book import read_note
from unbroken.checkpoints.checkpoint import Checkpoint
from unbroken.checkpoints.notes import Verifier
from unbroken.client.http import HttpFace
from unbroken.client.spill import MAGIC, SpillFile
from unbroken.client.transport import decode_problem
from unbroken.errors import CorruptError, UnbrokenError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.mcp.config import parse_servers
from unbroken.mcp.credentials import HelperError, _headers
from unbroken.messages import Cursor, Seq, StreamId, check_name, decode_messages, encode_message, payload_bytes
from unbroken.protocol import negotiation
from unbroken.protocol.client import ClientSession
from unbroken.protocol.codec import decode_client, decode_server, encode_client
from unbroken.protocol.frames import StreamView
from unbroken.protocol.sse import SseParser
from unbroken.runs.programs import load_programs
from unbroken.server.durable_streams.content import Content, body_messages
from unbroken.server.durable_streams.headers import append_request, create_request, matches_etag, media_type
from unbroken.server.durable_streams.offsets import Offset
from unbroken.store.base import Batch
from unbroken.store.chunks import ChunkRow, decode_chunk, encode_chunk
from unbroken.store.sqlite.salvage.records import cells

__all__ = ["PARSERS", "Target"]

PAGES_MAX: Final = 200_000
SMALL: Final = Limits(frame_bytes_max=4_096)


@dataclass(frozen=True, slots=True)
class Target:
    """One parser: `attempt` raises when it does what no parser may."""

    name: str
    inputs: st.SearchStrategy[Any]
    attempt: Callable[[Any], None]


@contextmanager
def refusing(*also: type[Exception]) -> Iterator[None]:
    """What may be refused inside: by an error of ours, or by one that the function promises."""
    with suppress(UnbrokenError, *also):
        yield


def wire_frames(given: tuple[Sequence[bytes], int | tuple[int | None, int | None] | None, int]) -> None:
    read_by_both(*given)


def client_frames(data: bytes) -> None:
    for limits in (DEFAULT_LIMITS, SMALL):
        with refusing():
            frame = decode_client(data, limits)
            assert decode_client(encode_client(frame)) == frame, "what was read is written and read as the same"


def server_frames(data: bytes) -> None:
    for limits in (DEFAULT_LIMITS, SMALL):
        with refusing():
            decode_server(data, limits)


def client_session(frames: Sequence[bytes]) -> None:
    """A server that says anything: the session abandons the connection, it never fails itself."""
    session = ClientSession(DEFAULT_LIMITS, Random(1))
    session.start()
    session.follow("a", "start", verify=True)
    now = 0.0
    for frame in (samples.as_bytes(samples.HELLO), *frames):
        if not session.connected:
            session.tick(now := now + 100.0)
            session.opened(now)
        session.receive(frame, now)
    session.closed(now, 1006)
    session.tick(now + 100.0)


def cursors(text: str) -> None:
    with refusing():
        cursor = Cursor.parse(text)
        assert Cursor.parse(str(cursor)) == cursor


def offsets(text: str) -> None:
    with refusing():
        offset = Offset.parse(text)
        assert Offset.parse(str(offset)) == offset


def durable_headers(headers: Mapping[str, str]) -> None:
    for read in (create_request, append_request):
        with refusing():
            read(headers)
    matches_etag(headers.get("if-none-match"), '"1-2-3"')
    media_type(headers.get("content-type", ""))


def durable_bodies(given: tuple[Content, bytes]) -> None:
    content, body = given
    with refusing():
        for message in body_messages(content, body, message_bytes_max=1_000):
            encoded = encode_message(message, time_ms=1, producer=None, limits=DEFAULT_LIMITS)
            decode_messages(encoded)


def messages(body: bytes) -> None:
    """What a client says that a message is, and back."""
    with refusing():
        frame = decode_client(b'{"type":"append","id":1,"stream":"a","messages":[%b]}' % body)
        for message in getattr(frame, "messages", ()):
            encoded = encode_message(message, time_ms=1, producer="p", limits=DEFAULT_LIMITS)
            assert b"\n" not in encoded
            (found,) = decode_messages(encoded)
            payload_bytes(found)


def server_events(parts: Sequence[bytes]) -> None:
    whole, cut = SseParser(SMALL), SseParser(SMALL)
    found, together = [], []
    with refusing():
        for part in parts:
            found += cut.feed(part)
        together = whole.feed(b"".join(parts))
        assert found == together, "where a response is cut makes no difference"


def names(name: str) -> None:
    with refusing():
        assert check_name(name, DEFAULT_LIMITS) == name
        assert name.encode().decode() == name


def subprotocols(offered: Sequence[str]) -> None:
    negotiation.ticket_of(offered)
    for read in (negotiation.choose, lambda given: negotiation.check(given[0] if given else None)):
        with refusing():
            read(offered)


_RULES: Final = JwtRules(
    issuer="https://id.example", audiences=frozenset({"unbroken"}), algorithms=frozenset({"HS256"})
)
_KEYS: Final = read_keys(json.dumps(samples.JWKS).encode(), frozenset({"HS256"}), DEFAULT_LIMITS, secrets=True)


def tokens(token: str) -> None:
    with refusing():
        head_of(token, _RULES)
    with refusing():
        verify(token, _RULES, _KEYS, now_ms=1_000)


def claims(payload: bytes) -> None:
    """A provider that signs anything."""
    with refusing():
        verify(samples.signed(payload), _RULES, _KEYS, now_ms=1_000)


def key_sets(document: bytes) -> None:
    with refusing(ValueError):
        read_keys(document, frozenset({"ES256", "RS256", "EdDSA", "HS256"}), DEFAULT_LIMITS, secrets=True)


_ACCESS: Final = Access(allow_origins=frozenset({"https://a.example"}), allow_hosts=frozenset({"b.example"}))


def checkpoint_notes(note: bytes) -> None:
    read_note(note, samples.SIGNER.verifier)  # what is wrong with it is its result


def checkpoints(text: str) -> None:
    """Also what was signed may be anything: whoever signs need not be us."""
    with refusing():
        checkpoint = Checkpoint.parse(text)
        assert checkpoint.text() == text, "what was read is written as the same"


def verifier_keys(text: str) -> None:
    with refusing():
        assert str(Verifier.parse(text)) == text.strip()


def hosts_and_origins(headers: Mapping[str, str]) -> None:
    with refusing():
        _ACCESS.check_host(headers, ("127.0.0.1", 4437))
    for changes in (True, False):
        with refusing():
            _ACCESS.check_origin(headers, scheme="http", changes_state=changes)


def answers(content: bytes) -> None:
    """What a server, or something on the way to it, may answer a client."""
    decode_problem(content)
    with refusing():
        HttpFace._decode(content, StreamView)


def printed_headers(output: bytes) -> None:
    """What a helper prints that is to give headers for an MCP server."""
    with refusing(HelperError):
        _headers(output)


def spill_files(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with refusing():
            spill = SpillFile.open(Path(file.name))
            try:
                list(spill.records())
            finally:
                spill.close()


def mcp_servers(text: bytes) -> None:
    with refusing():
        parse_servers(text, {"HOME": "/elsewhere", "EMPTY": ""})


def program_files(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with refusing():
            load_programs(Path(file.name))


_CHUNK: Final = encode_chunk(
    StreamId(7),
    Batch(Seq(1), Seq(2), b'{"kind":"a","text":"x"}\n{"kind":"a","text":"y"}'.replace(b"\n", b",\n"), b"h" * 32),
)


def chunks(row: ChunkRow) -> None:
    """A damaged row is corrupt and nothing else, also when its checksum was made to fit."""
    with suppress(CorruptError):
        decode_chunk(row)
    for body in (row.body, b""):
        fitted = samples.with_checksum(row._replace(body=body))
        if fitted is not None:
            with suppress(CorruptError):
                decode_chunk(fitted)


def pages(page: bytes) -> None:
    """A page of a damaged database gives rows or fewer of them."""
    page = page[:4096].ljust(4096, b"\0")
    fetched: list[int] = []

    def fetch(number: int) -> bytes:
        fetched.append(number)
        assert len(fetched) < PAGES_MAX, "a row goes round in a circle"
        return page

    found = sum(1 for _ in cells(page, 2, 4096, fetch))
    assert found <= len(page) // 2, "each row has two bytes that say where it is"


_HEADER_TEXT: Final = text_near(*samples.HEADER_VALUES)
_CHANGED_ROW: Final = st.builds(
    _CHUNK.__class__,
    st.integers(0, 2**63 - 1) | st.just(_CHUNK.key),
    st.integers(-(2**63), 2**63 - 1) | st.just(_CHUNK.n),
    st.integers(-1, 2**32) | st.sampled_from([0, 1, 2, 3]),
    st.integers(0, 2**32 - 1) | st.just(_CHUNK.crc),
    near(_CHUNK.hash),
    near(_CHUNK.body),
)

PARSERS: Final = (
    Target(
        "WebSocket frames",
        st.tuples(
            pieces(st.lists(near(*samples.WIRE_FRAMES.values()), max_size=6).map(b"".join)),
            st.sampled_from(SIZES_MAX),
            st.integers(0, 12),
        ),
        wire_frames,
    ),
    Target("client frames", json_near(*samples.CLIENT_FRAMES) | near(b""), client_frames),
    Target("server frames", json_near(*samples.SERVER_FRAMES) | near(b""), server_frames),
    Target("client session", st.lists(json_near(*samples.SERVER_FRAMES), max_size=6), client_session),
    Target("cursors", text_near("7:120", "0:0", "9007199254740991:1"), cursors),
    Target("offsets", text_near("0000000000000007_0000000000000120", "-1", "now"), offsets),
    Target("durable headers", st.dictionaries(st.sampled_from(samples.HEADER_NAMES), _HEADER_TEXT), durable_headers),
    Target(
        "durable bodies",
        st.tuples(st.sampled_from(Content), json_near([1, "a", {"b": None}]) | near(b"[1,2]")),
        durable_bodies,
    ),
    Target("messages", json_near(*samples.MESSAGES), messages),
    Target("server events", pieces(near(*samples.EVENTS)), server_events),
    Target("names", text_near("a/b/c", "chat/1", "ä/日"), names),
    Target("subprotocols", st.lists(text_near("unbroken.v1", "ticket.abcdef", "bearer.x"), max_size=4), subprotocols),
    Target("tokens", text_near(samples.TOKEN), tokens),
    Target("claims", json_near(samples.CLAIMS, *samples.FAR_CLAIMS), claims),
    Target("key sets", json_near(samples.JWKS), key_sets),
    Target(
        "hosts and origins",
        st.dictionaries(st.sampled_from(["host", "origin", "sec-fetch-site"]), _HEADER_TEXT),
        hosts_and_origins,
    ),
    Target("checkpoint notes", near(samples.NOTE), checkpoint_notes),
    Target("checkpoints", text_near(samples.CHECKPOINT), checkpoints),
    Target("verifier keys", text_near(str(samples.SIGNER.verifier)), verifier_keys),
    Target("answers", json_near(samples.PROBLEM, samples.VIEW) | near(b"<html>"), answers),
    Target("printed headers", json_near({"Authorization": "x", "X-Y": "z"}), printed_headers),
    Target(
        "spill files", near(samples.SPILL, MAGIC) | json_near(*samples.SPILL_RECORDS).map(samples.spilled), spill_files
    ),
    Target("MCP servers", json_near(*samples.MCP), mcp_servers),
    Target("program files", json_near(samples.PROGRAMS), program_files),
    Target("chunks", _CHANGED_ROW, chunks),
    Target("pages", near(samples.PAGE), pages),
)
