"""A state machine of everything that can be done to a store, held against an independent model step by step."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.integration.store.model import ENDED, Model, ModelStream, Outcome
from tests.integration.store.opening import keyed, left_in_the_clear
from tests.support.builders import ALICE, NOW_MS, encoded
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Epoch, Seq, StreamId, StreamState, split_encoded
from unbroken.protocol.chain import chain
from unbroken.store.base import (
    Append,
    Appended,
    Close,
    Created,
    CreateStream,
    DeleteStream,
    Done,
    Durability,
    Fork,
    Producer,
    Rejected,
    SetLease,
    SetState,
    StreamFilter,
    StreamingMessageRepository,
    Trim,
    WriteOp,
    WriteResult,
)
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.threads import InlineWorker

LIMITS = replace(
    DEFAULT_LIMITS,
    compact_chunks_min=3,
    compact_chunk_bytes=250,
    delete_step_chunks_max=2,
    store_cached_streams_max=2,
    store_cached_producers_max=1,
    store_readers=1,
)
"""Small, so that every bound is met."""
NAMES = st.sampled_from("abcdefghij")
COUNTS = st.integers(0, 5)
PICKS = st.integers(0, 19)
PRODUCERS = st.sampled_from([None, "p", "q", "r"])
STEPS = st.integers(-2, 3)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking, which takes minutes here: put it back to look into a failure."""


class StoreMachine(RuleBasedStateMachine):
    """Operations are collected and committed together; streams can be named by others once they are committed."""

    make: Callable[[Path], StreamingMessageRepository]
    lasting = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="unbroken-model-")
        self.runner = asyncio.Runner()
        self.model = Model()
        self.waiting: list[tuple[WriteOp, Callable[[WriteResult], None]]] = []
        self.known: list[ModelStream] = []
        self.now_ms = NOW_MS
        self.texts = 0
        self.together = 0

    @initialize(together=st.integers(0, 3))
    def open(self, together: int) -> None:
        self.together = together
        self.store = type(self).make(Path(self.directory.name) / "unbroken.db")
        self.runner.run(self.store.open())
        self.create("a", 3, None, 0)
        self.create("b", 0, None, 0)
        self.commit()

    def teardown(self) -> None:
        self.commit()
        self.runner.run(self.compare())
        self.runner.run(self.store.close())
        self.runner.close()
        self.directory.cleanup()

    def messages(self, count: int) -> tuple[bytes, ...]:
        self.texts += count
        return tuple(encoded(f"{n}" * (n % 7)) for n in range(self.texts - count, self.texts))

    def pick(self, number: int) -> ModelStream:
        """A stream, seldom one that is gone or hidden."""
        alive = [s for s in self.known if not s.gone and not s.deleted]
        among = self.known if number == 19 or not alive else alive
        return among[number % len(among)]

    def expect(self, op: WriteOp, outcome: Outcome) -> None:
        self.queue(op, lambda result: check(op, result, outcome))

    def queue(self, op: WriteOp, examine: Callable[[WriteResult], None]) -> None:
        self.waiting.append((op, examine))
        if len(self.waiting) > self.together:
            self.commit()

    @rule(name=NAMES, count=COUNTS)
    def begin(self, name: str, count: int) -> None:
        self.create(name, count, None, 0)

    @rule(name=NAMES, count=COUNTS, pick=PICKS, seq=st.integers(0, 12))
    def fork(self, name: str, count: int, pick: int, seq: int) -> None:
        self.create(name, count, self.pick(pick), seq)

    @rule(name=NAMES, count=COUNTS, pick=PICKS)
    def fork_near_the_head(self, name: str, count: int, pick: int) -> None:
        source = self.pick(pick)
        self.create(name, count, source, max(0, source.head - count))

    def create(self, name: str, count: int, source: ModelStream | None, seq: int) -> None:
        if source is not None and seq <= source.head + 4:
            seq = min(seq, source.head)  # beyond the head now and then only
        if source is not None and seq < source.first - 1:
            return  # whether its chain is still known depends on what is physically gone
        messages = self.messages(count)
        op = CreateStream(
            principal=ALICE,
            name=name,
            now_ms=self.now_ms,
            messages=messages,
            fork=None if source is None else Fork(StreamId(source.number), Seq(seq)),
        )
        before = self.model.named(name)
        outcome = self.model.create(name, messages, source, seq if source is not None else 0)

        def created(result: WriteResult) -> None:
            if isinstance(outcome, type):
                check(op, result, outcome)
                return
            assert isinstance(result, Created), result
            assert result.created is (outcome is not before)
            if result.created:
                outcome.number, outcome.epoch = result.stream.id, result.stream.epoch
                root = outcome.source
                outcome.genesis = result.stream.genesis if root is None else root.genesis
                self.known.append(outcome)
            assert result.stream.id == outcome.number

        self.queue(op, created)

    @rule(pick=PICKS, count=st.integers(1, 6), times=st.integers(1, 4))
    def append_plainly(self, pick: int, count: int, times: int) -> None:
        stream = self.pick(pick)
        for _ in range(times):
            op = appending(stream, self.messages(count), now_ms=self.now_ms)
            self.expect(op, self.model.append(stream, op))

    @rule(pick=PICKS, count=COUNTS, times=st.integers(1, 3), epoch=st.integers(1, 2))
    def append_and_retry(self, pick: int, count: int, times: int, epoch: int) -> None:
        stream = self.pick(pick)
        known = stream.producers.get("r", (0, -1))
        for seq in range(times):
            place = Producer("r", known[0] + epoch, seq) if epoch == 2 else Producer("r", known[0], known[1] + 1 + seq)
            op = appending(stream, self.messages(count), now_ms=self.now_ms, producer=place)
            for _ in range(2):
                self.expect(op, self.model.append(stream, op))

    @rule(
        pick=PICKS,
        count=COUNTS,
        producer=PRODUCERS,
        epoch_step=st.sampled_from([0, 0, 0, 1, -1]),
        seq_step=st.sampled_from([1, 1, 1, 0, -1, 2]),
        extra=st.sampled_from(["", "", "", "head", "old head", "writer", "writer", "close"]),
    )
    def append(self, pick: int, count: int, producer: str | None, epoch_step: int, seq_step: int, extra: str) -> None:
        stream = self.pick(pick)
        op = appending(
            stream,
            self.messages(count),
            now_ms=self.now_ms,
            close=Close(StreamState.COMPLETED) if extra == "close" else None,
            writer_seq=str(self.texts % 5) if extra == "writer" else None,
            expected_head={"head": Seq(stream.head), "old head": Seq(max(0, stream.head - 1))}.get(extra),
        )
        if producer is not None:
            epoch, seq, _, _ = stream.producers.get(producer, (1, -1, 0, 0))
            fresh = epoch + epoch_step
            number = max(0, seq + seq_step) if epoch_step == 0 else max(0, seq_step - 1)
            op = msgspec.structs.replace(op, producer=Producer(producer, fresh, number))
        self.expect(op, self.model.append(stream, op))

    @rule(pick=PICKS, state=st.sampled_from(list(StreamState)), late=st.booleans(), fence=PRODUCERS)
    def set_state(self, pick: int, state: StreamState, late: bool, fence: str | None) -> None:
        stream = self.pick(pick)
        if state.value in ENDED and pick % 5:
            return  # else there is little life
        op = SetState(
            stream=StreamId(stream.number),
            epoch=Epoch(stream.epoch),
            state=state,
            now_ms=self.now_ms,
            only_if_lease_before_ms=self.now_ms if late else None,
            fence=None if fence is None else (fence, 1),
        )
        self.expect(op, self.model.set_state(stream, op))

    @rule(pick=PICKS, producer=st.sampled_from(["p", "q"]), epoch=st.integers(0, 2), length=STEPS)
    def set_lease(self, pick: int, producer: str, epoch: int, length: int) -> None:
        stream = self.pick(pick)
        op = SetLease(
            stream=StreamId(stream.number),
            epoch=Epoch(stream.epoch),
            producer=producer,
            producer_epoch=epoch,
            until_ms=self.now_ms + length if length > 0 else None,
            now_ms=self.now_ms,
        )
        self.expect(op, self.model.set_lease(stream, op))

    @rule(pick=PICKS, step=st.integers(-1, 6))
    def trim(self, pick: int, step: int) -> None:
        stream = self.pick(pick)
        op = Trim(stream=StreamId(stream.number), epoch=Epoch(stream.epoch), first=Seq(stream.first + step))
        self.expect(op, self.model.trim(stream, op))

    @rule(pick=PICKS)
    def delete(self, pick: int) -> None:
        if pick % 3:
            return  # as above
        stream = self.pick(pick)
        op = DeleteStream(stream=StreamId(stream.number), epoch=Epoch(stream.epoch))
        self.expect(op, self.model.delete(stream, op))

    @rule(step=st.integers(0, 3))
    def time_passes(self, step: int) -> None:
        self.now_ms += step

    @rule()
    def commit(self) -> None:
        waiting, self.waiting = self.waiting, []
        results = self.runner.run(self.store.write([op for op, _ in waiting]))
        assert len(results) == len(waiting)
        for (_, examine), result in zip(waiting, results, strict=True):
            examine(result)

    @rule(pick=PICKS)
    def compact(self, pick: int) -> None:
        self.runner.run(self.store.compact(StreamId(self.pick(pick).number)))

    @precondition(lambda self: not self.waiting)
    @rule(at_least=st.integers(1, 3))
    def renew_leases(self, at_least: int) -> None:
        held = [stream for stream in self.model.streams if stream.lease is not None]
        for stream in held:
            assert stream.lease is not None
            stream.lease = (*stream.lease[:2], self.now_ms + max(stream.lease_length, at_least))
        assert self.runner.run(self.store.renew_leases(self.now_ms, at_least)) == len(held)

    @precondition(lambda self: self.lasting and not self.waiting)
    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        self.store = type(self).make(Path(self.directory.name) / "unbroken.db")
        self.runner.run(self.store.open())

    @precondition(lambda self: not self.waiting)
    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        self.runner.run(self.compare())

    async def compare(self) -> None:
        shown = [stream for stream in self.model.streams if not stream.deleted]
        page = await self.store.list_streams(ALICE, StreamFilter(), limit=50, after=None)
        assert sorted(s.name for s in page.items) == sorted(s.name for s in shown)
        late = await self.store.leased(self.now_ms, limit=50)
        assert sorted(s.name for s in late) == sorted(
            s.name for s in shown if s.lease is not None and s.lease[2] < self.now_ms
        )
        for stream in self.known:
            if stream.gone:
                assert await self.store.get_by_id(StreamId(stream.number)) is None
            elif not stream.deleted:
                await self.compare_stream(stream)

    async def compare_stream(self, stream: ModelStream) -> None:
        number = StreamId(stream.number)
        after = stream.first - 1
        found = await self.store.read(number, Seq(after), messages_max=1_000, bytes_max=1 << 20)
        info = found.stream
        assert (info.head, info.first, info.state.value) == (stream.head, stream.first, stream.state)
        lease = None if info.lease_producer is None else (info.lease_producer, info.lease_epoch, info.lease_until_ms)
        assert (lease, info.writer_seq) == (stream.lease, stream.writer_seq)
        read = [message for batch in found.batches for message in split_encoded(batch.body)]
        assert read == stream.messages[after:]
        head = stream.genesis
        for seq, message in enumerate(stream.messages, 1):
            head = chain(head, seq, [message])
            if seq >= stream.first - 1:
                assert await self.store.hash_at(number, Seq(seq)) == head
        assert info.hash == head
        if after > 0:
            hidden = await self.store.read(number, Seq(after - 1), messages_max=9, bytes_max=1 << 20)
            assert (hidden.trimmed, hidden.batches) == (True, ())


def appending(
    stream: ModelStream,
    messages: tuple[bytes, ...],
    *,
    now_ms: int,
    producer: Producer | None = None,
    expected_head: Seq | None = None,
    writer_seq: str | None = None,
    close: Close | None = None,
) -> Append:
    return Append(
        stream=StreamId(stream.number),
        epoch=Epoch(stream.epoch),
        messages=messages,
        now_ms=now_ms,
        producer=producer,
        expected_head=expected_head,
        writer_seq=writer_seq,
        close=close,
    )


def check(op: WriteOp, result: WriteResult, outcome: Outcome) -> None:
    """The result of an operation is the one that the model gave."""
    if isinstance(outcome, type):
        assert isinstance(result, Rejected), (op, result)
        assert type(result.error) is outcome, (op, result)
    elif outcome[0] == "done":
        assert isinstance(result, Done), (op, result)
    else:
        assert isinstance(result, Appended), (op, result)
        assert (result.duplicate, result.first, result.last) == (outcome[0] == "duplicate", *outcome[1:]), (op, result)


class MemoryMachine(StoreMachine):
    lasting = False

    @staticmethod
    def make(_path: Path) -> StreamingMessageRepository:
        return MemoryStore(LIMITS)


class SQLiteMachine(StoreMachine):
    @staticmethod
    def make(path: Path) -> StreamingMessageRepository:
        return keyed(sqlite_store(path))


class EncryptedMachine(StoreMachine):
    def teardown(self) -> None:
        assert left_in_the_clear(Path(self.directory.name)) == []
        super().teardown()

    @staticmethod
    def make(path: Path) -> StreamingMessageRepository:
        return keyed(sqlite_store(path), encrypted=True)


def sqlite_store(path: Path) -> SQLiteStore:
    return SQLiteStore(path, durability=Durability.PROCESS, limits=LIMITS, workers=InlineWorker, compress=True)


@pytest.mark.parametrize("machine", [MemoryMachine, SQLiteMachine])
def test_the_stores_do_what_the_model_does(machine: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=60, phases=PHASES))


def test_an_encrypted_store_does_too() -> None:
    """With few examples; the whole suite runs encrypted with UNBROKEN_TEST_ENCRYPTED=1."""
    few = settings(stateful_step_count=60, phases=PHASES, max_examples=15)
    run_state_machine_as_test(EncryptedMachine, settings=few)
