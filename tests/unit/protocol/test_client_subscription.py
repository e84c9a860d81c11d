"""One subscription, decision by decision: what continues the cursor, what is dropped, what is asked for again."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from unbroken.errors import ProtocolError, VerificationError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Cursor, Epoch, Seq
from unbroken.protocol.chain import chain, genesis
from unbroken.protocol.client_outputs import (
    Dropped,
    Ended,
    Gap,
    MessagesReceived,
    Output,
    Send,
    StateChanged,
    SubscriptionFailed,
    Trimmed,
)
from unbroken.protocol.client_subscription import Subscription
from unbroken.protocol.codec import ReceivedMessages
from unbroken.protocol.frames import StateFrame, StreamView, Subscribe, Subscribed

EPOCH = 7


def view(state: str = "open", *, head: int = 3, epoch: int = EPOCH) -> StreamView:
    return StreamView(
        stream="s",
        epoch=epoch,
        state=state,
        first=1,
        head=head,
        cursor=f"{epoch}:{head}",
        kind="stream",
        content_type="application/json",
        created=1,
        updated=1,
        bytes=1,
    )


def standing(seq: int = 2) -> Subscription:
    """A subscription that has everything up to `seq`."""
    subscription = Subscription("s", f"{EPOCH}:{seq}", verify=False, limits=DEFAULT_LIMITS, next_id=count(1).__next__)
    subscription.subscribe()
    subscription.subscribed(Subscribed(id=1, cursor=f"{EPOCH}:{seq}", hash="", stream=view()))
    return subscription


def messages(first: int, *texts: str, epoch: int = EPOCH) -> ReceivedMessages:
    raw = [msgspec.Raw(msgspec.json.encode({"kind": "message", "time": 1, "text": text})) for text in texts]
    return ReceivedMessages(stream="s", epoch=epoch, first=first, hash="", messages=raw)


def asked(outputs: list[Output]) -> list[str]:
    """Where the subscriptions begin that are sent."""
    return [
        output.frame.after for output in outputs if isinstance(output, Send) and isinstance(output.frame, Subscribe)
    ]


def test_messages_of_another_epoch_are_dropped_and_move_nothing() -> None:
    subscription = standing()
    assert subscription.messages(messages(3, "x", epoch=EPOCH + 1)) == [Dropped("s", 1, "epoch")]
    assert subscription.cursor == Cursor(Epoch(EPOCH), Seq(2))


def test_an_overlap_is_cut_off_and_the_rest_taken() -> None:
    dropped, taken = standing().messages(messages(2, "b", "c"))
    assert dropped == Dropped("s", 1, "overlap")
    assert isinstance(taken, MessagesReceived)
    assert (taken.first, [message.text for message in taken.messages]) == (3, ["c"])


def test_an_end_in_front_of_the_last_message_is_a_gap() -> None:
    subscription = standing(2)
    outputs = subscription.state(StateFrame(stream=view("completed", head=3)))
    assert outputs[0] == Gap("s", 3, 4)
    assert asked(outputs) == [f"{EPOCH}:2"]
    assert not subscription.over


def test_an_end_behind_the_last_message_is_the_end() -> None:
    subscription = standing(3)
    assert subscription.state(StateFrame(stream=view("completed"))) == [Ended(view("completed"))]
    assert subscription.over


def test_a_state_of_another_epoch_is_nobodys() -> None:
    assert standing(3).state(StateFrame(stream=view("completed", epoch=EPOCH + 1))) == []
    assert standing(3).state(StateFrame(stream=view("running"))) == [StateChanged(view("running"))]


def test_a_state_that_is_none_breaks_the_connection() -> None:
    with pytest.raises(ProtocolError, match="'finished' is not a state"):
        standing().state(StateFrame(stream=view("finished")))


@pytest.mark.parametrize(("first", "missing", "on"), [(6, 3, 5), (4, 1, 3), (3, 0, 2), (2, 0, 2)])
def test_trimmed_messages_are_counted_and_the_oldest_left_is_next(first: int, missing: int, on: int) -> None:
    outputs = standing(2).trimmed(first)
    assert outputs[0] == Trimmed("s", missing, first)
    assert asked(outputs) == [f"{EPOCH}:{on}"]


def test_trimmed_in_front_of_an_unknown_place_begins_with_the_oldest_left() -> None:
    subscription = Subscription("s", "last:5", verify=False, limits=DEFAULT_LIMITS, next_id=count(1).__next__)
    outputs = subscription.trimmed(9)
    assert outputs[0] == Trimmed("s", 0, 9)
    assert asked(outputs) == ["start"]


GENESIS = genesis("t", "s", EPOCH)


def verifying() -> Subscription:
    """A subscription from the start that recomputes the chain."""
    subscription = Subscription("s", f"{EPOCH}:0", verify=True, limits=DEFAULT_LIMITS, next_id=count(1).__next__)
    subscription.subscribe()
    subscription.subscribed(Subscribed(id=1, cursor=f"{EPOCH}:0", hash=GENESIS.hex(), stream=view()))
    return subscription


def chained(first: int, *texts: str, head: bytes = GENESIS) -> ReceivedMessages:
    """Messages with the chain's value at the last of them."""
    plain = messages(first, *texts)
    return msgspec.structs.replace(plain, hash=chain(head, first, plain.encoded()).hex())


def test_messages_that_continue_the_chain_are_taken_frame_by_frame() -> None:
    subscription, one = verifying(), chained(1, "a", "b")
    assert isinstance(subscription.messages(one)[0], MessagesReceived)
    assert isinstance(subscription.messages(chained(3, "c", head=bytes.fromhex(one.hash)))[0], MessagesReceived)
    assert subscription.cursor == Cursor(Epoch(EPOCH), Seq(3))


def test_messages_that_do_not_continue_the_chain_end_the_subscription_and_are_named() -> None:
    subscription = verifying()
    (failed,) = subscription.messages(chained(1, "a", head=bytes(32)))
    assert isinstance(failed, SubscriptionFailed)
    assert isinstance(failed.error, VerificationError)
    assert (failed.error.detail["stream"], failed.error.detail["seq"]) == ("s", 1)
    assert subscription.over
    assert subscription.cursor == Cursor(Epoch(EPOCH), Seq(0))


def test_a_server_that_comes_back_with_another_chain_is_not_believed() -> None:
    subscription = verifying()
    subscription.messages(chained(1, "a"))
    subscription.subscribe()
    again = Subscribed(id=2, cursor=f"{EPOCH}:1", hash=bytes(32).hex(), stream=view())
    failed = subscription.subscribed(again)[-1]
    assert isinstance(failed, SubscriptionFailed)
    assert failed.error.detail["seq"] == 1
    assert subscription.over


def test_without_verifying_no_chain_is_looked_at() -> None:
    subscription = standing(0)
    assert isinstance(subscription.messages(chained(1, "a", head=bytes(32)))[0], MessagesReceived)


def test_a_server_that_no_longer_says_its_chain_is_not_believed() -> None:
    subscription = verifying()
    (failed,) = subscription.messages(msgspec.structs.replace(chained(1, "a"), hash=""))
    assert isinstance(failed, SubscriptionFailed)
    silent = Subscription("s", f"{EPOCH}:0", verify=True, limits=DEFAULT_LIMITS, next_id=count(1).__next__)
    silent.subscribe()
    last = silent.subscribed(Subscribed(id=1, cursor=f"{EPOCH}:0", hash="", stream=view()))[-1]
    assert isinstance(last, SubscriptionFailed)


def test_nothing_missing_is_no_reason_to_begin_another_chain() -> None:
    subscription = verifying()
    subscription.messages(chained(1, "a"))
    subscription.trimmed(2)
    again = Subscribed(id=2, cursor=f"{EPOCH}:1", hash=bytes(32).hex(), stream=view())
    assert isinstance(subscription.subscribed(again)[-1], SubscriptionFailed)


def trusting(heads: dict[int, str]) -> Subscription:
    subscription = Subscription("s", f"{EPOCH}:0", verify=heads, limits=DEFAULT_LIMITS, next_id=count(1).__next__)
    subscription.subscribe()
    return subscription


@pytest.mark.parametrize(("seq", "bad"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)])
def test_a_chain_that_leads_elsewhere_than_to_a_trusted_head_is_found_there(seq: int, bad: int) -> None:
    honest = {n: chained(1, *"abcd"[:n]).hash if n else GENESIS.hex() for n in range(5)}
    for heads, fails in ((honest, False), (honest | {seq: bytes(32).hex()}, True)):
        subscription = trusting(heads)
        outputs = subscription.subscribed(Subscribed(id=1, cursor=f"{EPOCH}:0", hash=GENESIS.hex(), stream=view()))
        if not subscription.over:
            outputs += subscription.messages(chained(1, "a", "b"))
        if not subscription.over:
            outputs += subscription.messages(chained(3, "c", "d", head=bytes.fromhex(honest[2])))
        failed = [each for each in outputs if isinstance(each, SubscriptionFailed)]
        assert bool(failed) is fails
        if fails:
            assert failed[0].error.detail["last"] == bad


def test_a_stream_that_ends_in_front_of_a_trusted_head_was_cut_off() -> None:
    subscription = trusting({3: bytes(32).hex()})
    subscription.subscribed(Subscribed(id=1, cursor=f"{EPOCH}:0", hash=GENESIS.hex(), stream=view()))
    subscription.messages(chained(1, "a"))
    (failed,) = subscription.state(StateFrame(stream=msgspec.structs.replace(view(), state="completed", head=1)))
    assert isinstance(failed, SubscriptionFailed)
    assert (failed.error.detail["seq"], failed.error.detail["last"]) == (2, 3)
