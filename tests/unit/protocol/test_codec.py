"""Frames survive their encoding, what is no frame is refused, and messages keep their exact bytes."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import ProtocolError, TooLargeError
from unbroken.limits import Limits
from unbroken.messages import Message, NewMessage, encode_message, join_encoded
from unbroken.protocol.codec import (
    ReceivedMessages,
    decode_client,
    decode_server,
    encode_client,
    encode_server,
    messages_frame,
    messages_prefix,
)
from unbroken.protocol.frames import (
    Ack,
    Acks,
    AppendFrame,
    CancelFrame,
    ClientFrame,
    CloseSpec,
    CreateFrame,
    ErrorFrame,
    Goodbye,
    Heartbeat,
    Hello,
    LeaseFrame,
    MessagesFrame,
    Notice,
    Pause,
    ProducerSpec,
    Result,
    Resume,
    ServerFrame,
    StateFrame,
    StreamView,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

SMALL = Limits(frame_bytes_max=200)
VIEW = StreamView(
    stream="a",
    epoch=7,
    state="running",
    first=1,
    head=3,
    cursor="7:3",
    kind="run",
    content_type="application/json",
    created=1,
    updated=2,
    bytes=3,
)
CLIENT: list[ClientFrame] = [
    Subscribe(id=1, stream="a", after="7:3"),
    Unsubscribe(stream="a"),
    Pause(stream="a"),
    Resume(stream="a"),
    CreateFrame(id=2, stream="a", kind="run", lease=ProducerSpec(id="p"), ttl_seconds=5),
    AppendFrame(
        id=3,
        stream="a",
        messages=[NewMessage(text="x"), NewMessage(kind="k", data=b"\x00")],
        producer=ProducerSpec(id="p", epoch=1, seq=2),
        expected_head=4,
        close=CloseSpec(state="failed"),
    ),
    CancelFrame(id=2**53 - 1, stream="ä/日"),
    LeaseFrame(id=5, stream="a", producer=ProducerSpec(id="p"), seconds=0.5),
    Heartbeat(),
]
SERVER: list[ServerFrame] = [
    Hello(
        protocol="unbroken.v1",
        server="s",
        connection="c",
        heartbeat_seconds=15.5,
        silence_seconds=40.5,
        frame_bytes_max=1,
        message_bytes_max=2,
        append_messages_max=3,
    ),
    StateFrame(stream=VIEW),
    Acks(acks=[Ack(id=1, first=2, last=3), Ack(id=2, first=0, last=0, duplicate=True)]),
    Result(id=1, stream=VIEW, created=True),
    ErrorFrame(code="trimmed", message="m", retryable=True, id=1, stream="a", detail={"first": 4, "x": None}),
    Notice(code="degraded"),
    Goodbye(reason="restart", retry_after_seconds=1.5),
    Heartbeat(),
    Subscribed(id=1, cursor="7:3", hash="00", stream=VIEW),
]


@pytest.mark.parametrize("frame", CLIENT, ids=lambda frame: type(frame).__name__)
def test_a_frame_of_a_client_survives_its_encoding(frame: ClientFrame) -> None:
    assert decode_client(encode_client(frame)) == frame
    assert decode_client(encode_client(frame).decode()) == frame


@pytest.mark.parametrize("frame", SERVER, ids=lambda frame: type(frame).__name__)
def test_a_frame_of_a_server_survives_its_encoding(frame: ServerFrame) -> None:
    again = decode_server(encode_server(frame))
    assert type(again) is type(frame)
    assert msgspec.json.encode(again) == msgspec.json.encode(frame)


def test_a_messages_frame_keeps_the_exact_bytes_of_its_messages() -> None:
    encoded = [b'{"time":1,"text":"a,\\n]"}', '{"text":"ü"}'.encode(), b'{"json":{"b" : [1,  2]}}']
    data = messages_frame(messages_prefix('na"me', 7), 5, "ab", join_encoded(encoded))
    assert json.loads(data)["stream"] == 'na"me'
    frame = decode_server(data)
    assert isinstance(frame, ReceivedMessages)
    assert (frame.stream, frame.epoch, frame.first, frame.last, frame.hash) == ('na"me', 7, 5, 7, "ab")
    assert frame.encoded() == encoded
    assert [message.text for message in frame.decoded()[:2]] == ["a,\n]", "ü"]


def test_a_messages_frame_from_messages_is_the_one_from_their_bytes() -> None:
    messages = [Message(kind="k", time=1, text="x"), Message(time=2, data=b"y")]
    body = join_encoded([msgspec.json.encode(message) for message in messages])
    whole = encode_server(MessagesFrame(stream="a", epoch=1, first=1, hash="", messages=messages))
    assert whole == messages_frame(messages_prefix("a", 1), 1, "", body)


@given(st.text(), st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_comes_back_as_it_was(name: str, texts: list[str]) -> None:
    try:
        name.encode()
        encoded = [encode_message(NewMessage(text=text), time_ms=1, producer=None, limits=Limits()) for text in texts]
    except UnicodeEncodeError:
        return
    frame = decode_server(messages_frame(messages_prefix(name, 1), 1, "", join_encoded(encoded)))
    assert isinstance(frame, ReceivedMessages)
    assert frame.encoded() == encoded
    assert [message.text for message in frame.decoded()] == texts


BAD = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"type":7}',
    b'{"type":"subscribe"}',
    b'{"type":"subscribe","id":"1","stream":"a"}',
    b'{"type":"heartbeat"} {}',
    b'{"type":"heartbeat","x":"\xff"}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", BAD, ids=lambda data: repr(data[:30]))
def test_what_is_no_frame_is_a_protocol_error_at_both_ends(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_client(data)
    if not data.startswith(b'{"type":"subscribe"'):
        with pytest.raises(ProtocolError):
            decode_server(data)


@pytest.mark.parametrize("number", [-1, 2**53])
def test_an_id_beyond_its_bounds_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError):
        decode_client(json.dumps({"type": "cancel", "id": number, "stream": "a"}))


def test_an_unknown_type_is_ignored_by_a_client_and_refused_by_a_server() -> None:
    assert decode_server(b'{"type":"novelty","x":1}') is None
    with pytest.raises(ProtocolError):
        decode_client(b'{"type":"novelty","x":1}')


def test_unknown_fields_are_ignored_by_both() -> None:
    assert decode_client(b'{"type":"pause","stream":"a","novelty":[1]}') == Pause(stream="a")
    assert decode_server(b'{"type":"notice","code":"c","novelty":1}') == Notice(code="c")


def test_a_frame_beyond_the_limit_is_refused_in_every_direction() -> None:
    large = "x" * 200
    for call in (
        lambda: encode_client(Pause(stream=large), SMALL),
        lambda: encode_server(Notice(code=large), SMALL),
        lambda: decode_client(encode_client(Pause(stream=large)), SMALL),
        lambda: decode_server(encode_server(Notice(code=large)).decode(), SMALL),
    ):
        with pytest.raises(TooLargeError) as caught:
            call()
        assert caught.value.detail == {"limit": "frame_bytes_max"}
    exact = encode_client(Pause(stream="x" * (200 - len(encode_client(Pause(stream=""))))))
    assert len(exact) == 200
    assert isinstance(decode_client(exact, SMALL), Pause)


def test_a_lone_surrogate_is_no_frame() -> None:
    with pytest.raises(ProtocolError):
        decode_server('{"type":"notice","code":"\ud800"}')


def test_a_message_that_is_none_and_a_seq_before_the_first_are_refused() -> None:
    frame = decode_server(b'{"type":"messages","stream":"a","epoch":1,"first":1,"hash":"","messages":[{"time":"x"}]}')
    assert isinstance(frame, ReceivedMessages)
    with pytest.raises(ProtocolError):
        frame.decoded()
    with pytest.raises(ProtocolError):
        decode_server(b'{"type":"messages","stream":"a","epoch":1,"first":0,"hash":"","messages":[]}')
