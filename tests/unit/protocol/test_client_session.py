"""What the Python client core does beyond the shared transcripts: pausing, retries, requests, bad frames."""

from __future__ import annotations

from random import Random

import pytest

from unbroken.errors import OverloadedError, ProducerGapError, VersionError
from unbroken.limits import Limits
from unbroken.messages import Message, NewMessage
from unbroken.protocol import client_outputs as out
from unbroken.protocol.client import ClientSession
from unbroken.protocol.codec import encode_server
from unbroken.protocol.frames import (
    Ack,
    Acks,
    AppendFrame,
    CancelFrame,
    CreateFrame,
    ErrorFrame,
    Hello,
    LeaseFrame,
    MessagesFrame,
    Pause,
    ProducerSpec,
    Result,
    Resume,
    ServerFrame,
    StateFrame,
    StreamView,
    Subscribe,
    Subscribed,
)

LIMITS = Limits(client_follow_messages_max=4, client_retries_max=2)


def view(*, state: str = "open", head: int = 0) -> StreamView:
    return StreamView(
        stream="a",
        epoch=1,
        state=state,
        first=1,
        head=head,
        cursor=f"1:{head}",
        kind="stream",
        content_type="application/json",
        created=0,
        updated=0,
        bytes=0,
    )


def hello(protocol: str = "unbroken.v1") -> Hello:
    return Hello(
        protocol=protocol,
        server="s",
        connection="c",
        heartbeat_seconds=15.0,
        silence_seconds=40.0,
        frame_bytes_max=1 << 20,
        message_bytes_max=1 << 20,
        append_messages_max=1000,
    )


def messages(first: int, count: int) -> MessagesFrame:
    return MessagesFrame(
        stream="a", epoch=1, first=first, hash="", messages=[Message(text=f"m{first + n}") for n in range(count)]
    )


class Shell:
    """A session that is connected, and its outputs."""

    def __init__(self) -> None:
        self.session = ClientSession(LIMITS, Random(1))
        self.now = 0.0
        self.session.start()
        self.session.opened(self.now)
        self.feed(hello())

    def feed(self, frame: ServerFrame) -> list[out.Output]:
        return self.session.receive(encode_server(frame), self.now)

    def reconnect(self) -> list[out.Output]:
        self.session.closed(self.now, 1006)
        self.now += 60
        assert self.session.tick(self.now) == [out.Connect()]
        return self.session.opened(self.now)

    def follow(self) -> None:
        (send,) = self.session.follow("a")
        assert isinstance(send, out.Send)
        assert isinstance(send.frame, Subscribe)
        self.feed(Subscribed(id=send.frame.id, cursor="1:0", hash="", stream=view()))

    def append(self, seq: int) -> AppendFrame | None:
        frame = AppendFrame(
            id=0, stream="a", messages=[NewMessage(text=f"m{seq}")], producer=ProducerSpec(id="p", seq=seq)
        )
        _, sent = self.session.request(frame)
        return sent_frame(sent) if sent else None

    def refuse(self, frame: AppendFrame | None, code: str, *, retryable: bool, **detail: int) -> list[out.Output]:
        assert frame is not None
        return self.feed(
            ErrorFrame(code=code, message=code, retryable=retryable, id=frame.id, stream="a", detail=dict(detail))
        )


def sent_frame(outputs: list[out.Output]) -> AppendFrame:
    (send,) = outputs
    assert isinstance(send, out.Send)
    assert isinstance(send.frame, AppendFrame)
    return send.frame


def seqs(outputs: list[out.Output]) -> list[int]:
    frames = [output.frame for output in outputs if isinstance(output, out.Send)]
    return [frame.producer.seq for frame in frames if isinstance(frame, AppendFrame) and frame.producer is not None]


def test_a_paused_stream_takes_what_is_on_the_way_up_to_its_bound_and_asks_for_the_rest_when_resumed() -> None:
    shell = Shell()
    shell.follow()
    assert shell.session.pause("a") == [out.Send(Pause(stream="a"))]
    taken = 0
    for first in range(1, 20):
        for output in shell.feed(messages(first, 1)):
            taken += len(output.messages) if isinstance(output, out.MessagesReceived) else 0
    assert taken == LIMITS.client_follow_messages_max + 1
    assert shell.feed(StateFrame(stream=view(state="completed", head=19))) == []
    (send,) = shell.session.resume("a")
    assert isinstance(send, out.Send)
    assert isinstance(send.frame, Subscribe)
    assert send.frame.after == f"1:{taken}"


def test_a_stream_that_missed_nothing_while_paused_just_goes_on() -> None:
    shell = Shell()
    shell.follow()
    shell.session.pause("a")
    shell.feed(messages(1, 2))
    assert shell.session.resume("a") == [out.Send(Resume(stream="a"))]
    assert shell.session.resume("a") == []


def test_a_paused_stream_is_not_subscribed_after_a_reconnect_until_it_is_resumed() -> None:
    shell = Shell()
    shell.follow()
    shell.session.pause("a")
    shell.feed(messages(1, 2))
    assert shell.reconnect() == []
    (send,) = shell.session.resume("a")
    assert isinstance(send, out.Send)
    assert isinstance(send.frame, Subscribe)
    assert send.frame.after == "1:2"


def test_a_refusal_that_can_pass_sends_the_producers_appends_again_in_order_and_no_others_meanwhile() -> None:
    shell = Shell()
    first, second = shell.append(0), shell.append(1)
    assert shell.refuse(first, "overloaded", retryable=True, retry_after_seconds=3) == []
    assert shell.refuse(second, "producer_gap", retryable=False, expected=0) == []
    assert shell.append(2) is None
    at = shell.session.next_at()
    assert at == 3.0
    assert shell.session.tick(2.9) == []
    assert seqs(shell.session.tick(3.0)) == [0, 1, 2]
    assert shell.refuse(first, "fenced", retryable=False) == [], "an answer to the earlier sending counts no more"


def test_an_acknowledgement_of_an_earlier_sending_counts() -> None:
    shell = Shell()
    first = shell.append(0)
    assert first is not None
    shell.refuse(first, "unknown_outcome", retryable=True)
    assert seqs(shell.session.tick(5)) == [0]
    (acked,) = shell.feed(Acks(acks=[Ack(id=first.id, first=1, last=1)]))
    assert isinstance(acked, out.Acked)
    assert shell.session.unanswered == 0


def test_retries_are_bounded_and_then_told() -> None:
    shell = Shell()
    frame, outputs = shell.append(0), list[out.Output]()
    for _ in range(LIMITS.client_retries_max):
        assert shell.refuse(frame, "overloaded", retryable=True) == []
        shell.now += 60
        shell.session.receive(b'{"type":"heartbeat"}', shell.now)
        outputs = shell.session.tick(shell.now)
        frame = sent_frame(outputs)
    (failed,) = shell.refuse(frame, "overloaded", retryable=True)
    assert isinstance(failed, out.Failed)
    assert isinstance(failed.error, OverloadedError)


def test_a_lease_that_the_store_refused_is_asked_for_again_within_a_third_of_it() -> None:
    shell = Shell()
    lease = LeaseFrame(id=0, stream="a", producer=ProducerSpec(id="p"), seconds=0.6)
    _, sent = shell.session.request(lease)
    for _ in range(LIMITS.client_retries_max):
        (send,) = sent
        assert isinstance(send, out.Send)
        assert isinstance(send.frame, LeaseFrame)
        error = ErrorFrame(code="store_unavailable", message="", retryable=True, id=send.frame.id, stream="a")
        assert shell.feed(error) == []
        at = shell.session.next_at()
        assert at is not None
        assert at - shell.now <= 0.2
        shell.now = at
        sent = shell.session.tick(at)


def test_a_gap_that_is_the_servers_loss_is_told() -> None:
    shell = Shell()
    first = shell.append(5)
    (failed,) = shell.refuse(first, "producer_gap", retryable=False, expected=2)
    assert isinstance(failed, out.Failed)
    assert isinstance(failed.error, ProducerGapError)


def test_requests_of_every_kind_are_sent_again_in_their_order() -> None:
    shell = Shell()
    shell.session.request(CreateFrame(id=0, stream="a"))
    shell.append(0)
    shell.session.request(CancelFrame(id=0, stream="a"))
    kinds = [type(output.frame) for output in shell.reconnect() if isinstance(output, out.Send)]
    assert kinds == [CreateFrame, AppendFrame, CancelFrame]


def test_a_forgotten_request_is_not_sent_again_and_its_answer_is_ignored() -> None:
    shell = Shell()
    key, outputs = shell.session.request(CancelFrame(id=0, stream="a"))
    (send,) = outputs
    assert isinstance(send, out.Send)
    assert isinstance(send.frame, CancelFrame)
    shell.session.forget(key)
    assert shell.feed(Result(id=send.frame.id, stream=view())) == []
    assert shell.reconnect() == []


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"type":"messages","stream":"a","epoch":1,"first":1,"hash":"","messages":[{"time":"x"}]}',
        b'{"type":"subscribed","id":1,"cursor":"x","hash":"","stream":{}}',
    ],
)
def test_a_bad_frame_costs_the_connection_and_nothing_else(data: bytes) -> None:
    shell = Shell()
    shell.follow()
    shell.feed(messages(1, 2))
    bad = data if b"messages" not in data else data.replace(b'"first":1', b'"first":3')
    complained, close, wait = shell.session.receive(bad, shell.now)
    assert isinstance(complained, out.Complained)
    assert isinstance(close, out.CloseNow)
    assert close.code == 4400
    assert isinstance(wait, out.Wait)
    assert shell.session.cursor("a") == "1:2"


def test_a_frame_beyond_the_limit_closes_with_1009() -> None:
    shell = Shell()
    outputs = shell.session.receive(b" " * (LIMITS.frame_bytes_max + 1), shell.now)
    assert [output.code for output in outputs if isinstance(output, out.CloseNow)] == [1009]


def test_a_hello_of_another_version_is_refused_for_good() -> None:
    session = ClientSession(LIMITS, Random(1))
    session.start()
    session.opened(0.0)
    outputs = session.receive(encode_server(hello("unbroken.v9")), 0.0)
    assert isinstance(outputs[-1], out.Refused)
    assert isinstance(outputs[-1].error, VersionError)
    assert session.tick(1e9) == []


def test_a_subscription_refused_for_the_moment_is_asked_for_again() -> None:
    shell = Shell()
    shell.follow()
    error = ErrorFrame(code="overloaded", message="", retryable=True, stream="a", detail={"retry_after_seconds": 2})
    assert shell.feed(error) == []
    assert shell.session.next_at() == 2.0
    (send,) = shell.session.tick(2.0)
    assert isinstance(send, out.Send)
    assert isinstance(send.frame, Subscribe)
    assert send.frame.after == "1:0"
