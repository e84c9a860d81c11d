"""Owns the list of mistakes that our tests must notice, one for each promise that would break in silence.

`python -m tests.mutations [--record FILE] [NAME...]` makes each in a copy of the checkout and runs the tests named beside
it: a mutation that survives is a promise that nobody holds. test_mutations.py holds the list against the code. The checkout
is never changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.mutations_disk import DISK_MUTATIONS
from tests.mutations_edge import EDGE_MUTATIONS
from tests.mutations_hostile import HOSTILE_MUTATIONS
from tests.mutations_page import PAGE_MUTATIONS
from tests.mutations_simulated import SIMULATED_MUTATIONS
from tests.mutations_spill import SPILL_MUTATIONS
from tests.support.mutating import Mutation, Verdict, copied, tried
from tests.support.mutation_record import Record

__all__ = ["MUTATIONS", "main"]

LOG = "src/unbroken/log.py"
HUB = "src/unbroken/hub.py"
STATES = "src/unbroken/states.py"
DECIDE = "src/unbroken/store/decide.py"
SUBSCRIPTION = "src/unbroken/protocol/client_subscription.py"
REQUESTS = "src/unbroken/protocol/client_requests.py"
BACKOFF = "src/unbroken/protocol/backoff.py"
CHAIN = "src/unbroken/protocol/chain.py"
SESSION = "src/unbroken/protocol/client.py"
SSE = "src/unbroken/protocol/sse.py"
CHECK = "src/unbroken/testing/history_check.py"
ACTORS = "src/unbroken/testing/survival/actors.py"
RECORDING = "src/unbroken/testing/survival/recording.py"
SCORECARD = "src/unbroken/testing/survival/scorecard.py"
RESOLVER = "src/unbroken/testing/resolver.py"

LOG_TESTS = ("tests/unit/test_log.py",)
HUB_TESTS = ("tests/unit/test_hub.py",)
STATE_TESTS = ("tests/unit/test_states.py", "tests/integration/store/test_life_cycle.py")
APPEND_TESTS = ("tests/integration/store/test_append.py", "tests/integration/store/test_life_cycle.py")
SESSION_TESTS = (
    "tests/unit/protocol/test_client_subscription.py",
    "tests/unit/protocol/test_client_requests.py",
    "tests/unit/protocol/test_client_session.py",
    "tests/unit/client",
)
HISTORY_TESTS = ("tests/unit/testing/test_history.py",)
KIT_TESTS = ("tests/unit/testing/test_scorecard.py", "tests/integration/survival_kit/test_saboteurs.py")
BLACK_HOLE = ("tests/integration/network/test_black_hole.py",)

MUTATIONS: Final = (
    # --- the log: durable, then acknowledged; bounded ---
    Mutation(
        "producers are told before listeners",
        LOG,
        "        self._announce(changes)\n        for (_, _, decided), result in zip(taken, results, strict=True):\n"
        "            decided(result)\n",
        "        for (_, _, decided), result in zip(taken, results, strict=True):\n            decided(result)\n"
        "        self._announce(changes)\n",
        LOG_TESTS,
    ),
    Mutation(
        "a failed commit is acknowledged",
        LOG,
        "        for _, _, decided in taken:\n            decided(error)\n",
        "        for _, _, decided in taken:\n            decided(Done())\n",
        LOG_TESTS,
    ),
    Mutation(
        "an unknown outcome is told as never begun",
        LOG,
        'decided(UnknownOutcomeError("the server stopped before the store had answered"))',
        "decided(DrainingError())",
        LOG_TESTS,
    ),
    Mutation(
        "room is never given back",
        LOG,
        "        self._pending_bytes -= sum(size for _, size, _ in taken)\n",
        "",
        LOG_TESTS,
    ),
    Mutation(
        "a commit takes what it likes",
        LOG,
        "        if len(queue) <= limits.commit_messages_max and self._pending_bytes <= limits.commit_bytes_max:\n",
        "        if len(queue) <= 2**40:\n",
        LOG_TESTS,
    ),
    Mutation(
        "a draining log takes more",
        LOG,
        "        if self._draining:\n            raise DrainingError\n",
        "",
        LOG_TESTS,
    ),
    Mutation(
        "a duplicate is announced as new",
        LOG,
        "if isinstance(result, Appended) and not result.duplicate:",
        "if isinstance(result, Appended):",
        (*LOG_TESTS, *HUB_TESTS),
    ),
    # --- the hub: nothing is skipped, nothing is doubled ---
    Mutation(
        "a batch that was seen through the store is offered again",
        HUB,
        "        if batch.first <= live.head:\n            return  # seen already, through the store\n",
        "",
        HUB_TESTS,
    ),
    Mutation(
        "a viewer that is behind is given what is not its turn",
        HUB,
        "if viewer.cursor == before and viewer.sink.offer(viewer, news):",
        "if viewer.sink.offer(viewer, news):",
        HUB_TESTS,
    ),
    Mutation(
        "a viewer that cannot take it is not woken",
        HUB,
        "            else:\n                viewer.sink.wake(viewer)\n        self._metrics.delivered_batches += taken\n",
        "        self._metrics.delivered_batches += taken\n",
        HUB_TESTS,
    ),
    Mutation(
        "the end is told in front of the last message",
        HUB,
        "    if info.state.terminal and subscription.cursor < info.head:\n        return None\n",
        "",
        HUB_TESTS,
    ),
    Mutation(
        "the ring grows for ever",
        HUB,
        "while len(ring) > 1 and (live.ring_bytes > limits.ring_bytes_max or len(ring) > limits.ring_batches_max):",
        "while len(ring) > 2**40:",
        HUB_TESTS,
    ),
    Mutation(
        "a ring with a hole is kept",
        HUB,
        "        if batch.first != live.head + 1 or (ring and ring[-1].last != live.head):\n            ring.clear()\n",
        "        if batch.first != live.head + 1 and not ring:\n            ring.clear()\n",
        HUB_TESTS,
    ),
    Mutation(
        "a cursor inside a batch is served whole batches",
        HUB,
        "        return found if found and found[0].first == cursor + 1 else None\n",
        "        return found or None\n",
        HUB_TESTS,
    ),
    Mutation(
        "trimmed messages are passed over in silence",
        HUB,
        "        if read.trimmed:\n            raise TrimmedError(first=read.stream.first, stream=live.name)\n",
        "",
        (*HUB_TESTS, "tests/integration/http/test_sse.py", "tests/integration/http/test_long_poll.py"),
    ),
    # --- retry: an append takes effect once, and a predecessor is shut out ---
    Mutation(
        "a repeat is appended again",
        DECIDE,
        "    return producer.epoch == known.epoch and producer.seq <= known.seq\n",
        "    return False\n",
        APPEND_TESTS,
    ),
    Mutation(
        "only the latest append is known as a repeat",
        DECIDE,
        "producer.epoch == known.epoch and producer.seq <= known.seq\n",
        "producer.epoch == known.epoch and producer.seq == known.seq\n",
        APPEND_TESTS,
    ),
    Mutation(
        "an old epoch may still append",
        DECIDE,
        "    if producer is not None and known is not None and producer.epoch < known.epoch:\n"
        "        return FencedError(epoch=known.epoch)\n",
        "",
        APPEND_TESTS,
    ),
    Mutation(
        "a gap in a producer's numbers is taken",
        DECIDE,
        "        if producer.seq != expected:\n",
        "        if producer.seq < expected:\n",
        APPEND_TESTS,
    ),
    Mutation(
        "an ended stream takes more",
        DECIDE,
        "    if entry.fixed.state in TERMINAL_STATES:\n        return _ended(entry)\n    if producer is not None:\n",
        "    if producer is not None:\n",
        APPEND_TESTS,
    ),
    Mutation(
        "a retry that was refused for a moment is given up",
        REQUESTS,
        "if retryable and lane.refusals < self._limits.client_retries_max:",
        "if False:",
        SESSION_TESTS,
    ),
    Mutation(
        "what is unanswered is not sent again",
        REQUESTS,
        "return [self._send(pending) for pending in self._pending.values() if pending.lane.retry_at is None]",
        "return []",
        SESSION_TESTS,
    ),
    Mutation(
        "an append overtakes one that rests",
        REQUESTS,
        "        sends = connected and lane.retry_at is None\n",
        "        sends = connected\n",
        SESSION_TESTS,
    ),
    Mutation(
        "backoff does not grow",
        BACKOFF,
        "self._limits.backoff_seconds_min * 2**doublings",
        "self._limits.backoff_seconds_min * 1**doublings",
        ("tests/unit/client/test_reconnect.py", "tests/unit/protocol"),
    ),
    Mutation(
        "backoff has no cap",
        BACKOFF,
        "2**doublings, self._limits.backoff_seconds_max, at_most)",
        "2**doublings, at_most)",
        ("tests/unit/client/test_reconnect.py", "tests/unit/protocol"),
    ),
    Mutation(
        "backoff has no jitter",
        BACKOFF,
        "self._random.uniform(whole / 2, whole)",
        "whole",
        ("tests/unit/client/test_reconnect.py", "tests/unit/protocol"),
    ),
    # --- lease: only the dead are reaped, and only one produces ---
    Mutation(
        "a renewed lease is reaped",
        DECIDE,
        "    if before is not None and (info.lease_until_ms is None or info.lease_until_ms >= before):\n",
        "    if before is not None and info.lease_until_ms is None:\n",
        STATE_TESTS,
    ),
    Mutation(
        "a held lease is given to another",
        DECIDE,
        "    if not own and (held or (op.until_ms is None and info.lease_producer is not None)):\n",
        "    if not own and (op.until_ms is None and info.lease_producer is not None):\n",
        STATE_TESTS,
    ),
    Mutation(
        "whoever has no lease may append beside it",
        DECIDE,
        "    if not op.beside_lease and _held_against(entry.fixed, producer, op.now_ms):\n",
        "    if False:\n",
        (*STATE_TESTS, *APPEND_TESTS),
    ),
    Mutation(
        "a renewal ends a pause",
        DECIDE,
        "        if info.state is StreamState.PAUSED:\n"
        '            return Rejected(TransitionError("the stream is paused; resume it before taking its lease"))\n',
        "",
        STATE_TESTS,
    ),
    Mutation(
        "sleep kills producers",
        STATES,
        "        elif passed > interval + max(interval, tolerance) or passed_by_wall > passed + tolerance:\n",
        "        elif False:\n",
        STATE_TESTS,
    ),
    Mutation(
        "a jump of the wall clock is no sleep",
        STATES,
        " or passed_by_wall > passed + tolerance:",
        ":",
        STATE_TESTS,
    ),
    Mutation(
        "leases are not extended when the store comes back",
        STATES,
        "                if away or absence:\n",
        "                if absence:\n",
        ("tests/integration/simulation/test_takeover.py",),
    ),
    # --- resume: after its cursor, without a hole or a double ---
    Mutation(
        "an overlap is delivered twice",
        SUBSCRIPTION,
        "        overlap = min(expected - frame.first, count)\n",
        "        overlap = 0\n",
        SESSION_TESTS,
    ),
    Mutation(
        "a gap is taken as it comes",
        SUBSCRIPTION,
        "        if frame.first > expected:\n",
        "        if False:\n",
        SESSION_TESTS,
    ),
    Mutation(
        "a client resumes from the start",
        SUBSCRIPTION,
        "        place = self.after if self.cursor is None else str(self.cursor)\n",
        "        place = self.after\n",
        SESSION_TESTS,
    ),
    Mutation(
        "messages of another epoch are taken",
        SUBSCRIPTION,
        "        if frame.epoch != self.cursor.epoch:\n",
        "        if False:\n",
        SESSION_TESTS,
    ),
    Mutation(
        "an end in front of the last message is believed",
        SUBSCRIPTION,
        "        if view.head > self.cursor.seq:\n            return self._gap(view.head + 1)\n",
        "",
        SESSION_TESTS,
    ),
    Mutation(
        "how many were trimmed is not told",
        SUBSCRIPTION,
        "        missing = max(first - 1 - self.cursor.seq, 0)\n",
        "        missing = 0\n",
        SESSION_TESTS,
    ),
    Mutation(
        "a broken chain is believed",
        "src/unbroken/protocol/client_chain.py",
        "        if self._head != said:\n",
        "        if False:\n",
        SESSION_TESTS,
    ),
    Mutation(
        "a leaf does not cover its place",
        CHAIN,
        'leaf.update(salt + seq.to_bytes(8, "big") + message)',
        "leaf.update(salt + message)",
        ("tests/unit/protocol", "tests/unit/store"),
    ),
    Mutation(
        "a client waits for a dead network for ever",
        SESSION,
        "        if now >= self._heard_at + self._silence_seconds:",
        "        if now >= self._heard_at + 2**30:",
        (*SESSION_TESTS, *BLACK_HOLE),
    ),
    Mutation(
        "an event cut off by the end is dispatched",
        SSE,
        "        if self._data:\n            found.append",
        "        if True:\n            found.append",
        ("tests/unit/protocol/test_sse.py",),
    ),
    # --- the kit itself: it catches, and accuses nobody ---
    Mutation(
        "the checker overlooks a gap",
        CHECK,
        "                observer.missing[missed] = position\n",
        "                pass\n",
        HISTORY_TESTS,
    ),
    Mutation(
        "the checker overlooks what was lost after its acknowledgement",
        CHECK,
        "            if name not in places and not 0 < acked.position < self._first:\n",
        "            if False:\n",
        HISTORY_TESTS,
    ),
    Mutation(
        "the checker overlooks a viewer that is stuck",
        CHECK,
        "            if over and not observer.ends:\n",
        "            if False:\n",
        HISTORY_TESTS,
    ),
    Mutation(
        "a fault that never bit counts as survived",
        SCORECARD,
        "    if report.doubts or any(",
        "    if any(",
        KIT_TESTS,
    ),
    Mutation(
        "the kit's viewer comes back from the start",
        ACTORS,
        '        cursor = "" if self._behind is None else self._behind.cursor\n',
        '        cursor = ""\n',
        KIT_TESTS,
    ),
    Mutation(
        "the kit forgets the number of an append that it sends again",
        ACTORS,
        "                if self._retries:\n                    continue\n",
        "                if self._retries:\n                    self._number += 1\n                    continue\n",
        KIT_TESTS,
    ),
    Mutation(
        "the kit believes positions that nobody told",
        RECORDING,
        "        self.told = self.told and delivery.position > 0\n",
        "",
        KIT_TESTS,
    ),
    Mutation(
        "the resolver never fails",
        RESOLVER,
        "        if isinstance(answer, int):\n",
        "        if False:\n",
        ("tests/unit/testing/test_resolver.py",),
    ),
    *SPILL_MUTATIONS,
    *DISK_MUTATIONS,
    *EDGE_MUTATIONS,
    *HOSTILE_MUTATIONS,
    *SIMULATED_MUTATIONS,
    *PAGE_MUTATIONS,
)


def main(arguments: Sequence[str]) -> int:
    """Try all mutations, or those with the names given; 0 when every one was killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="keep what is found, and go on from there next time"
    )
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.names) - {mutation.name for mutation in MUTATIONS})
    if unknown:
        print(f"no such mutation: {', '.join(unknown)}", file=sys.stderr)
        return 2
    counts = _try_all(
        [mutation for mutation in MUTATIONS if not chosen.names or mutation.name in chosen.names], chosen.record
    )
    print(f"{counts[Verdict.KILLED]} of {counts.total()} killed")
    return 0 if counts[Verdict.KILLED] == counts.total() else 1


def _try_all(mutations: Sequence[Mutation], record_file: Path | None) -> Counter[Verdict]:
    """Try one after the other and say what became of each."""
    counts: Counter[Verdict] = Counter()
    sound: set[str] = set()
    with copied() as folder:
        record = Record(record_file, folder)
        for mutation in mutations:
            begun = time.monotonic()
            outcome = record.killed(mutation)
            if outcome is None:
                outcome = tried(folder, mutation, first=record.noticed(mutation), sound=sound)
                record.add(mutation, outcome)
            counts[outcome.verdict] += 1
            seconds = time.monotonic() - begun
            print(f"{outcome.verdict:14} {seconds:4.0f} s  {mutation.name}: {outcome.by}", flush=True)
            if outcome.verdict is not Verdict.KILLED:
                print(outcome.why, file=sys.stderr, flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
