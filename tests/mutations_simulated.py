"""Owns the mistakes that need time, crashes or a whole world to show: the simulation finds them, or a test beside it.

`tests.mutations` joins them to its own; what one is and how it is tried is said there.
"""

from __future__ import annotations

from typing import Final

from tests.support.mutating import Mutation

__all__ = ["SIMULATED_MUTATIONS"]

SIMULATED_MUTATIONS: Final = (
    Mutation(
        "a restart takes the time of leases away",
        "src/unbroken/server/engine.py",
        "extended = await services.states.recover()",
        "extended = 0",
        ("tests/integration/simulation/test_takeover.py",),
    ),
    Mutation(
        "a producer does not renew its lease",
        "src/unbroken/client/producer.py",
        "            await self._lease(seconds)\n        except TransitionError:",
        "            await asyncio.sleep(0)\n        except TransitionError:",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "nobody reaps",
        "src/unbroken/states.py",
        "self._streams.log.metrics.reaped.inc(await self._end(late, now))",
        "pass",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "the end comes before the last message",
        "src/unbroken/hub.py",
        "    if info.state.terminal and subscription.cursor < info.head:\n        return None\n",
        "",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "SSE resumes one message too late",
        "src/unbroken/server/http_messages.py",
        "return SseResponse(call, stream, cursor, events, takeover=takeover)",
        "cursor = Seq(min(cursor + 1, stream.head)) if cursor else cursor; "
        "return SseResponse(call, stream, cursor, events, takeover=takeover)",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "requests are not sent again",
        "src/unbroken/protocol/client_requests.py",
        "return [self._send(pending) for pending in self._pending.values() if pending.lane.retry_at is None]",
        "return []",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "who holds a lease comes back when it likes",
        "src/unbroken/protocol/client.py",
        "at_most=min(self._leases.values(), default=inf) / RENEWALS",
        "at_most=inf",
        ("tests/unit/client/test_reconnect.py",),
    ),
    Mutation(
        "an append keeps the number of the one before",
        "src/unbroken/client/appends.py",
        "            identity.seq += 1\n            return appended",
        "            return appended",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "a viewer that was paused is not resumed",
        "src/unbroken/client/follow.py",
        "        self._link.resume(self.stream)",
        "        pass",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "a continued run stores everything again",
        "src/unbroken/runs/supervisor.py",
        "run.skip = history.yielded",
        "run.skip = 0",
        ("tests/integration/simulation/test_simulation.py",),
    ),
    Mutation(
        "a long lease gets the default only",
        "src/unbroken/store/memory.py",
        "full_ms = max(entry.fixed.lease_ms or 0, at_least_ms)",
        "full_ms = at_least_ms",
        ("tests/integration/store/test_life_cycle.py",),
    ),
    Mutation(
        "a refused lease is asked for again too late",
        "src/unbroken/protocol/client_requests.py",
        ", at_most=at_most)",
        ")",
        ("tests/unit/protocol/test_client_session.py",),
    ),
    Mutation(
        "a ticket is good again when the clock is set back",
        "src/unbroken/auth/tickets.py",
        "self.issued_ms <= now_ms < self.expires_ms",
        "now_ms < self.expires_ms",
        ("tests/unit/auth",),
    ),
    Mutation(
        "a clock that is set back keeps dead producers",
        "src/unbroken/states.py",
        "if passed_by_wall < passed - tolerance:",
        "if False:",
        ("tests/integration/simulation/test_takeover.py",),
    ),
    Mutation(
        "a lease taken by a clock that is set since counts",
        "src/unbroken/states.py",
        "absence = absence or looks.doubt(late, now)",
        "looks.doubt(late, now)",
        ("tests/integration/simulation/test_takeover.py",),
    ),
    Mutation(
        "a run is taken over by the wall clock alone",
        "src/unbroken/runs/supervisor.py",
        " and seen >= given_seconds",
        "",
        ("tests/integration/simulation/test_takeover.py",),
    ),
    Mutation(
        "time in which nobody could renew counts",
        "src/unbroken/runs/supervisor.py",
        "        if self._streams.log.degraded is not None:\n            self._sight.forget()\n",
        "",
        ("tests/integration/simulation/test_takeover.py",),
    ),
    Mutation(
        "timers of one moment run in any order",
        "src/unbroken/testing/simulation/loop.py",
        "return self.number < other.number",
        "return False",
        ("tests/unit/testing",),
    ),
    Mutation(
        "real time is judged by producer",
        "src/unbroken/testing/history_check.py",
        "acked.index < latest[0]",
        "acked.index < latest_by_producer[sent.producer][0]",
        ("tests/unit/testing",),
    ),
    Mutation(
        "each viewer catches up as if it were alone",
        "src/unbroken/hub.py",
        "room = min(bytes_max or self._limits.read_bytes_max, self.share_bytes)",
        "room = bytes_max or self._limits.read_bytes_max",
        ("tests/unit/test_hub.py",),
    ),
    Mutation(
        "a connection's buffer does not shrink with their number",
        "src/unbroken/server/wire.py",
        "        if bytes_max != self._max and not self._transport.is_closing():\n",
        "        if False:\n",
        ("tests/integration/websocket/test_backpressure.py",),
    ),
)
