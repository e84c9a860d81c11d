"""What a run holds for the server: in order, each append once and always the same, bounded, and honest when it is full."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.client.outbox import RESERVE_BYTES, Outbox
from unbroken.client.spill import (
    SpillAppend,
    SpillFile,
    SpillHeader,
    SpillTarget,
    spill_directory,
    spill_files,
    spill_lock,
)
from unbroken.errors import CorruptError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, StreamState

HEADER = SpillHeader(run="run-1", stream="run/x", server="http://server.example")
SMALL = replace(
    DEFAULT_LIMITS,
    run_message_bytes_max=64,
    run_append_bytes_max=128,
    run_memory_bytes_max=600,
    spill_bytes_max=4_000 + RESERVE_BYTES,
)


def outbox_in(directory: Path) -> Outbox:
    return Outbox(directory / "run-1.spill", HEADER, SMALL, wake=lambda: None)


def drain(outbox: Outbox, delivered: list[SpillAppend], count: int = 1_000_000) -> None:
    """Take up to `count` appends, as a delivery does."""
    for _ in range(count):
        append = outbox.peek()
        if append is None:
            return
        assert outbox.peek() == append, "an append never changes"
        delivered.append(append)
        outbox.done(append.seq)


def contents(appends: list[SpillAppend]) -> tuple[str, int]:
    """The texts joined, and the bytes that gaps say were dropped."""
    text, dropped = "", 0
    for message in [message for append in appends for message in append.messages]:
        if message.kind == "gap":
            assert isinstance(message.json, msgspec.Raw)
            dropped += json.loads(bytes(message.json))["dropped_bytes"]
        else:
            text += str(message.text)
    return text, dropped


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("output"), st.integers(1, 300)),
        st.tuples(st.just("deliver"), st.integers(1, 10)),
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_everything_is_delivered_in_order_or_counted_as_dropped(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as name:
        outbox = outbox_in(Path(name))
        delivered: list[SpillAppend] = []
        written = 0
        for step, size in steps:
            if step == "output":
                outbox.output("stdout", b"".join(b"%07d\n" % (written + number) for number in range(size)))
                outbox.flush()
                written += size
            elif step == "deliver":
                drain(outbox, delivered, size)
            elif step == "save":
                outbox.save()
            else:
                outbox.retarget(SpillTarget(stream="run/x.2", base=outbox.next_seq, continues="run/x"))
            assert not outbox.path.exists() or outbox.path.stat().st_size <= SMALL.spill_bytes_max
        outbox.finish(StreamState.COMPLETED, b"{}")
        drain(outbox, delivered)
        assert outbox.delivered
        assert not outbox.path.exists()
        assert [append.seq for append in delivered] == list(range(len(delivered)))
        assert delivered[-1].close is not None
        text, dropped = contents(delivered)
        numbers = [int(line) for line in text.split()]
        assert numbers == sorted(set(numbers))
        assert len(numbers) * 8 + dropped == written * 8
        assert dropped == outbox.dropped_bytes


@given(st.integers(1, 40), st.integers(0, 40), st.booleans())
def test_what_was_saved_is_delivered_by_another_process(count: int, before: int, finished: bool) -> None:
    with TemporaryDirectory() as name:
        outbox = outbox_in(Path(name))
        delivered: list[SpillAppend] = []
        for number in range(count):
            outbox.output("stdout", b"%07d\n" % number)
            outbox.flush()
            if number % 3 == 0:
                drain(outbox, delivered, 1 if number < before else 0)
        if finished:
            outbox.finish(StreamState.FAILED, b'{"exit_code":2}')
        assert outbox.save()
        outbox.close()
        if not outbox.path.exists():
            return
        again = Outbox.recover(outbox.path, SMALL)
        redelivered: list[SpillAppend] = []
        drain(again, redelivered)
        assert again.delivered
        assert not outbox.path.exists()
        known = {append.seq: append for append in delivered}
        assert all(known.get(append.seq, append) == append for append in redelivered), "a repeat is the same append"
        merged = {append.seq: append for append in [*delivered, *redelivered]}
        assert sorted(merged) == list(range(len(merged)))
        text, _ = contents([merged[seq] for seq in sorted(merged)])
        assert [int(line) for line in text.split()] == list(range(count))
        close = redelivered[-1].close
        assert close is not None
        assert close.state == ("failed" if finished else "interrupted")


def test_a_full_file_drops_the_newest_and_says_how_much(tmp_path: Path) -> None:
    outbox = outbox_in(tmp_path)
    for number in range(2_000):
        outbox.output("stdout", b"%07d\n" % number)
        outbox.flush()
    assert outbox.path.stat().st_size <= SMALL.spill_bytes_max
    assert outbox.dropped_bytes > 0
    outbox.finish(StreamState.COMPLETED, b"{}")
    delivered: list[SpillAppend] = []
    drain(outbox, delivered)
    text, dropped = contents(delivered)
    assert [int(line) for line in text.split()] == list(range(len(text) // 8)), "the oldest is kept"
    assert len(text) + dropped == 2_000 * 8


def test_room_that_was_delivered_is_used_again(tmp_path: Path) -> None:
    """Ten appends always wait, ten times as many as the file can hold pass through it."""
    limits = replace(SMALL, spill_bytes_max=20_000 + RESERVE_BYTES)
    outbox = Outbox(tmp_path / "run-1.spill", HEADER, limits, wake=lambda: None)
    delivered: list[SpillAppend] = []
    largest = 0
    for number in range(8_000):
        outbox.output("stdout", b"%07d\n" % number)
        outbox.flush()
        if number % 16 == 15 and number > 160:
            drain(outbox, delivered, 1)
        largest = max(largest, outbox.path.stat().st_size if outbox.path.exists() else 0)
    assert 10_000 < largest <= limits.spill_bytes_max
    outbox.finish(StreamState.COMPLETED, b"{}")
    drain(outbox, delivered)
    text, dropped = contents(delivered)
    assert dropped == outbox.dropped_bytes == 0
    assert [int(line) for line in text.split()] == list(range(8_000))


def test_what_memory_holds_always_fits_into_the_file(tmp_path: Path) -> None:
    limits = replace(SMALL, run_memory_bytes_max=1_000_000)
    outbox = Outbox(tmp_path / "run-1.spill", HEADER, limits, wake=lambda: None)
    for number in range(2_000):
        outbox.output("stdout", b"%07d\n" % number)
        outbox.flush()
    assert outbox.save()
    assert outbox.path.stat().st_size <= limits.spill_bytes_max
    outbox.close()


def test_a_file_that_cannot_be_written_costs_only_what_memory_cannot_hold(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    outbox = Outbox(blocked / "run-1.spill", HEADER, SMALL, wake=lambda: None)
    for number in range(200):
        outbox.output("stdout", b"%07d\n" % number)
        outbox.flush()
    assert not outbox.save()
    assert isinstance(outbox.trouble, OSError)
    outbox.finish(StreamState.COMPLETED, b"{}")
    delivered: list[SpillAppend] = []
    drain(outbox, delivered)
    text, dropped = contents(delivered)
    assert text
    assert len(text) + dropped == 200 * 8


def test_an_append_that_the_server_never_takes_is_replaced_by_its_size(tmp_path: Path) -> None:
    outbox = outbox_in(tmp_path)
    outbox.output("stdout", b"poison\n")
    outbox.finish(StreamState.COMPLETED, b"{}")
    first = outbox.peek()
    assert first is not None
    outbox.give_up(first.seq)
    delivered: list[SpillAppend] = []
    drain(outbox, delivered)
    assert contents(delivered) == ("", len(b"poison\n"))


def test_a_continuation_is_remembered_and_what_came_before_it_is_not_sent_there(tmp_path: Path) -> None:
    outbox = outbox_in(tmp_path)
    for number in range(20):
        outbox.output("stdout", b"%060d\n" % number)
    outbox.save()
    drain(outbox, [], 3)
    outbox.retarget(SpillTarget(stream="run/x.2", base=3, continues="run/x"))
    outbox.close()
    again = Outbox.recover(outbox.path, SMALL)
    assert again.target.stream == "run/x.2"
    first = again.peek()
    assert first is not None
    assert first.seq == 3
    again.close()


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_a_record_half_written_is_cut_off_and_the_rest_delivered(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "run-1.spill"
    file = SpillFile.create(path, [HEADER])
    for seq in range(3):
        file.add(SpillAppend(seq=seq, messages=[]))
    file.truncate(file.size - lost)
    file.close()
    outbox = Outbox.recover(path, SMALL)
    delivered: list[SpillAppend] = []
    drain(outbox, delivered)
    assert [append.seq for append in delivered] == [0, 1, 2]
    assert delivered[-1].close is not None
    assert [message.kind for message in delivered[-1].messages] == ["gap"]


def test_what_is_added_behind_a_torn_end_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run-1.spill"
    file = SpillFile.create(path, [HEADER])
    whole = file.add(SpillAppend(seq=0))
    torn = file.add(SpillAppend(seq=1)) - 3
    file.truncate(torn)
    file.close()
    file = SpillFile.open(path)
    assert (file.lost_bytes, file.size, path.stat().st_size) == (torn - whole, whole, whole)
    file.add(SpillAppend(seq=2))
    file.close()
    again = SpillFile.open(path)
    assert [record for record, _ in again.records()] == [HEADER, SpillAppend(seq=0), SpillAppend(seq=2)]
    assert again.lost_bytes == 0
    again.close()


def test_a_file_of_another_version_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run-1.spill"
    file = SpillFile.create(path, [HEADER])
    file.add(SpillAppend(seq=0))
    file.add(b'{"type":"checkpoint","seq":1}')
    file.add(SpillAppend(seq=2))
    file.close()
    before = path.read_bytes()

    with pytest.raises(CorruptError, match="another version"):
        SpillFile.open(path)

    assert path.read_bytes() == before


def test_what_a_write_that_failed_half_way_has_left_is_taken_back(tmp_path: Path) -> None:
    file = SpillFile.create(tmp_path / "run-1.spill", [HEADER])
    before = file.size
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.add(SpillAppend(seq=0, messages=[NewMessage(text="x" * 1000)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert (file.size, file.path.stat().st_size) == (before, before)
    file.add(SpillAppend(seq=0))
    assert [record for record, _ in file.records()] == [HEADER, SpillAppend(seq=0)]
    file.close()


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_nothing_from_a_changed_byte_on_is_given_out_and_that_is_said(tmp_path: Path, damaged: int) -> None:
    path = tmp_path / "run-1.spill"
    file = SpillFile.create(path, [HEADER])
    for seq in range(3):
        file.add(SpillAppend(seq=seq, messages=[NewMessage(kind="stdout", text=f"text {seq}")]))
    file.close()
    path.write_bytes(path.read_bytes().replace(b"text %d" % damaged, b"TEXT %d" % damaged))
    outbox = Outbox.recover(path, SMALL)
    delivered: list[SpillAppend] = []
    drain(outbox, delivered)
    assert [append.seq for append in delivered[:-1]] == list(range(damaged))
    assert delivered[-1].close is not None
    assert [message.kind for message in delivered[-1].messages] == ["gap"]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run-1.spill"
    path.write_bytes(b"something else entirely")
    with pytest.raises(CorruptError):
        Outbox.recover(path, SMALL)
    assert path.exists()


def test_only_one_process_at_a_time_delivers_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run-1.spill"
    path.touch()
    with spill_lock(path) as first, spill_lock(path) as second:
        assert (first, second) == (True, False)
    with spill_lock(path) as third:
        assert third
        path.unlink()
    assert list(tmp_path.iterdir()) == [], "the lock's file goes with the spill file"


def test_the_lock_of_a_run_that_left_nothing_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "run-gone.lock").touch()
    with spill_lock(tmp_path / "run-alive.spill"):
        assert spill_files(tmp_path) == []
        assert [path.name for path in tmp_path.iterdir()] == ["run-alive.lock"]


def test_a_spill_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = SpillFile.create(tmp_path / "new" / "run-1.spill", [HEADER])
    file.close()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700


def test_files_are_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert spill_directory() == tmp_path / "unbroken" / "spill"
    assert spill_files(spill_directory()) == []
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert spill_directory() == tmp_path / ".local" / "state" / "unbroken" / "spill"
