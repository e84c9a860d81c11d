"""The shared transcripts: the Python client core does exactly what tests/vectors says, as the browser's does."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from unbroken.errors import InvalidError, error_from_code
from unbroken.limits import Limits
from unbroken.messages import Cursor, NewMessage
from unbroken.protocol import client_outputs as out
from unbroken.protocol.backoff import Backoff
from unbroken.protocol.chain import chain, genesis
from unbroken.protocol.client import ClientSession, comes_back
from unbroken.protocol.frames import AppendFrame, ProducerSpec
from unbroken.protocol.salts import Salts

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
Step = dict[str, Any]


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


class FixedRandom(Random):
    """Every draw is the same."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


class Runner:
    """Feeds one transcript to a session and compares what comes out of each step."""

    def __init__(self, random: float) -> None:
        self.session = ClientSession(Limits(), FixedRandom(random))
        self.ids: dict[str, int] = {}

    def run(self, step: Step) -> list[out.Output]:
        now, session = float(step["at"]), self.session
        actions: dict[str, Callable[[], list[out.Output]]] = {
            "start": session.start,
            "stop": session.stop,
            "wake": session.wake,
            "tick": lambda: session.tick(now),
            "opened": lambda: session.opened(now),
            "closed": lambda: session.closed(now, step["code"]),
            "follow": lambda: session.follow(step["stream"], step["after"]),
            "unfollow": lambda: session.unfollow(step["stream"]),
            "append": lambda: session.request(self.append_frame(step))[1],
            "renew": lambda: session.renew(step["token"]),
            "receive": lambda: session.receive(json.dumps(self.resolve(step["frame"])), now),
            "connect_failed": lambda: session.connect_failed(
                now,
                error_from_code(step["code"], "", {}) if "code" in step else None,
                retry_after=step.get("retry_after", 0),
            ),
        }
        return actions[step["do"]]()

    @staticmethod
    def append_frame(step: Step) -> AppendFrame:
        return AppendFrame(
            id=0,
            stream=step["stream"],
            messages=msgspec.convert(step["messages"], list[NewMessage]),
            producer=msgspec.convert(step.get("producer"), ProducerSpec | None),
        )

    def resolve(self, value: Any) -> Any:
        """Names of ids by the numbers that they are bound to."""
        if isinstance(value, dict):
            return {key: self.resolve(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.resolve(inner) for inner in value]
        return self.ids[value] if isinstance(value, str) and value.startswith("$") else value

    def check(self, outputs: list[out.Output], expected: list[Step]) -> None:
        told = [dict(simple) for output in outputs if (simple := simplify(output)) is not None]
        for actual, wanted in zip(told, expected, strict=False):
            name = wanted.get("frame", {}).get("id")
            if isinstance(name, str) and name not in self.ids and "frame" in actual:
                self.ids[name] = actual["frame"]["id"]
        assert [trim(actual, wanted) for actual, wanted in zip(told, expected, strict=False)] == [
            normal(self.resolve(wanted)) for wanted in expected
        ]
        assert len(told) == len(expected)


def trim(actual: Step, wanted: Step) -> Step:
    """`actual` with the fields that the transcript speaks of."""
    return normal({key: value for key, value in actual.items() if key in wanted})


def normal(output: Step) -> Step:
    """Defaults written out, times rounded."""
    output = dict(output)
    if "seconds" in output:
        output["seconds"] = round(output["seconds"], 9)
    if "frame" in output:
        defaults = {"after": "start"} if output["frame"]["type"] == "subscribe" else {}
        output["frame"] = defaults | output["frame"]
    return output


def simplify(output: out.Output) -> Step | None:  # noqa: C901, PLR0912 - one case for each output
    """An output as the transcripts write it; None for one of our own."""
    match output:
        case out.Connect():
            return {"action": "connect"}
        case out.CloseNow():
            return {"action": "close"}
        case out.Renew():
            return {"action": "renew"}
        case out.Wait(seconds):
            return {"action": "wait", "seconds": seconds}
        case out.Send(frame):
            return {"action": "send", "frame": json.loads(msgspec.json.encode(frame))}
        case out.SubscriptionStands(stream, cursor):
            return {"event": "subscribed", "stream": stream, "cursor": str(cursor)}
        case out.MessagesReceived(stream, epoch, first, messages):
            return {"event": "messages", "stream": stream, "epoch": epoch, "first": first, "count": len(messages)}
        case out.Dropped(stream, count, why):
            return {"event": "dropped", "stream": stream, "count": count, "why": why}
        case out.Gap(stream, expected, first):
            return {"event": "gap", "stream": stream, "expected": expected, "first": first}
        case out.EpochChanged(stream, epoch):
            return {"event": "epoch_changed", "stream": stream, "epoch": epoch}
        case out.Trimmed(stream, missing, first):
            return {"event": "trimmed", "stream": stream, "missing": missing, "first": first}
        case out.StateChanged(view):
            return {"event": "state", "stream": view.stream, "state": view.state}
        case out.Ended(view):
            return {"event": "ended", "stream": view.stream, "state": view.state}
        case out.Acked(_, number, first, last, duplicate):
            return {"event": "acked", "id": number, "first": first, "last": last, "duplicate": duplicate}
        case out.Failed(_, number, error):
            return {"event": "failed", "id": number, "code": error.code}
        case out.SubscriptionFailed(stream, error):
            return {"event": "failed", "stream": stream, "code": error.code}
        case out.Noticed(code):
            return {"event": "notice", "code": code}
        case out.Refused(error, close_code):
            return {"event": "refused", "code": error.code, "close_code": close_code}
        case _:
            return None


TRANSCRIPTS = load("session.json")["transcripts"]


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=[transcript["name"] for transcript in TRANSCRIPTS])
def test_the_client_does_what_the_transcript_says(transcript: Step) -> None:
    runner = Runner(transcript["random"])
    for number, step in enumerate(transcript["steps"]):
        outputs = runner.run(step)
        try:
            runner.check(outputs, step["expect"])
        except AssertionError as error:
            raise AssertionError(f"step {number}: {step}\n{error}") from None


@pytest.mark.parametrize("case", load("backoff.json")["cases"], ids=str)
def test_the_wait_before_the_nth_reconnection(case: Step) -> None:
    backoff = Backoff(Limits(), FixedRandom(case["random"]))
    for _ in range(case["n"]):
        backoff.failure(0.0)
    assert backoff.failure(0.0, at_most=0.1) <= 0.1
    assert backoff.failure(0.0, at_least=1.0, at_most=0.1) == 1.0
    backoff = Backoff(Limits(), FixedRandom(case["random"]))
    for _ in range(case["n"]):
        backoff.failure(0.0)
    assert backoff.failure(0.0, at_least=case.get("retry_after", 0)) == pytest.approx(case["delay"], abs=1e-9)


@pytest.mark.parametrize("case", load("close_codes.json")["cases"], ids=str)
def test_which_close_codes_come_back(case: Step) -> None:
    assert comes_back(case["code"]) is case["comes_back"]


@pytest.mark.parametrize("case", load("cursor.json")["cases"], ids=str)
def test_which_texts_are_cursors(case: Step) -> None:
    if not case["valid"]:
        with pytest.raises(InvalidError):
            Cursor.parse(case["text"])
        return
    cursor = Cursor.parse(case["text"])
    assert (cursor.epoch, cursor.seq, str(cursor)) == (case["epoch"], case["seq"], case["text"])


@pytest.mark.parametrize("case", load("chain.json")["cases"], ids=lambda case: f"{case['name']}:{case['epoch']}")
def test_the_hash_chain(case: Step) -> None:
    head, salts = bytes.fromhex(case["genesis"]), Salts(b64decode(case.get("salts", "")))
    if case["first"] == 1:
        assert head == genesis(case["tenant"], case["name"], case["epoch"])
    for seq, (message, wanted) in enumerate(zip(case["messages"], case["heads"], strict=True), case["first"]):
        head = chain(head, seq, [message.encode()], salts)
        assert head.hex() == wanted


@pytest.mark.parametrize("case", load("salts.json")["cases"], ids=lambda case: case["name"])
def test_salts(case: Step) -> None:
    salts = Salts(b64decode(case["salts"]))
    assert {seq: salts.salt(int(seq)).hex() for seq in case["of"]} == case["of"]
