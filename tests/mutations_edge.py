"""Owns the mistakes about bad networks and scarce machines that the test of each such row must notice.

`tests.mutations` joins them to its own; what one is and how it is tried is said there.
"""

from __future__ import annotations

from typing import Final

from tests.support.mutating import Mutation

__all__ = ["EDGE_MUTATIONS"]

SESSION = "src/unbroken/protocol/client.py"
TRANSPORT = "src/unbroken/client/transport.py"
LINK = "src/unbroken/client/link.py"
CONNECTION = "src/unbroken/server/connection.py"
MANAGER = "src/unbroken/server/manager.py"

NETWORK = "tests/integration/network"
FLAPPING = (f"{NETWORK}/test_black_hole.py::test_a_link_that_flaps_lags_and_resets_makes_progress_each_time",)
MOVED_NAME = (f"{NETWORK}/test_dns.py::test_a_name_that_stops_resolving_and_moves_is_followed",)
TOLD_NAME = (f"{NETWORK}/test_dns.py::test_the_client_says_why_there_is_no_connection",)
PROXIES = (f"{NETWORK}/test_reverse_proxies.py::test_a_reverse_proxy_on_a_bad_day_loses_nothing",)
SCARCITY = "tests/integration/machine/test_scarcity.py"
MEMORY = (f"{SCARCITY}::test_under_a_memory_limit_stalled_readers_cost_little_and_lose_nothing",)
THROTTLED = (f"{SCARCITY}::test_on_a_fifth_of_a_cpu_everything_arrives_and_nobody_is_taken_for_dead",)

EDGE_MUTATIONS: Final = (
    # --- a link that flaps (TC-EDGE-002) ---
    Mutation(
        "a connection that was reset is a refusal",  # one that is only forgotten is found by its silence
        SESSION,
        '            return self._refuse(refusal(f"the server closed the connection with code {code}"), code)\n'
        "        return self._wait(now, 0.0)\n",
        '            return self._refuse(refusal(f"the server closed the connection with code {code}"), code)\n'
        "        return self._refuse(DrainingError(), code)\n",
        FLAPPING,
    ),
    Mutation(
        "a connection that was refused is not tried again",
        SESSION,
        "            return self._refuse(error)\n        return self._wait(now, retry_after)\n",
        "            return self._refuse(error)\n        return []\n",
        FLAPPING,
    ),
    Mutation(
        "what a flap left unanswered is forgotten",
        SESSION,
        "        return [*outputs, *self._requests.send_all()]\n",
        "        return [*outputs, *([] if self._backoff.failures else self._requests.send_all())]\n",
        FLAPPING,
    ),
    Mutation(
        "a new connection does not subscribe again",
        SESSION,
        "            if not subscription.paused:\n                outputs.append(subscription.subscribe())\n",
        "            if subscription.cursor is None:\n                outputs.append(subscription.subscribe())\n",
        FLAPPING,
    ),
    # --- a name that does not resolve, or moves (TC-EDGE-003) ---
    Mutation(
        "a name that does not resolve is a refusal",
        TRANSPORT,
        '            raise ConnectFailedError(f"{type(error).__name__}: {error}") from error\n',
        '            refusal = InvalidError(str(error)) if type(error).__name__ == "gaierror" else None\n'
        '            raise ConnectFailedError(f"{type(error).__name__}: {error}", refusal=refusal) from error\n',
        MOVED_NAME,
    ),
    Mutation(
        "the address of a name is kept for ever",
        TRANSPORT,
        "        try:\n            connection = await connect(\n                self.address.websocket,\n",
        "        import asyncio\n\n"
        '        known, place = globals().setdefault("_known", {}), urlsplit(self.address.websocket)\n'
        "        try:\n"
        "            if place.hostname not in known:\n"
        "                found = await asyncio.get_running_loop().getaddrinfo(place.hostname, place.port)\n"
        "                known[place.hostname] = found[0][4][0]\n"
        "            connection = await connect(\n"
        "                self.address.websocket,\n"
        "                host=known[place.hostname],\n",
        MOVED_NAME,
    ),
    Mutation(
        "a resolver that does not answer is waited for",
        TRANSPORT,
        "open_timeout=self.limits.handshake_seconds_max",
        "open_timeout=None",
        MOVED_NAME,
    ),
    Mutation(
        "why there is no connection is not said",
        LINK,
        "        except ConnectFailedError as error:\n            self._last_error = error\n",
        "        except ConnectFailedError as error:\n",
        TOLD_NAME,
    ),
    # --- a reverse proxy on a bad day (TC-EDGE-004) ---
    Mutation(
        "a proxy's 502 or 504 is a refusal",
        TRANSPORT,
        "kind = _REFUSALS.get(response.status_code)",
        "kind = _REFUSALS.get(response.status_code, UnauthorizedError)",
        PROXIES,
    ),
    Mutation(
        "a proxy that goes away takes the place of its viewers with it",
        "src/unbroken/protocol/client_subscription.py",
        "        place = self.after if self.cursor is None else str(self.cursor)\n",
        '        place = self.after if self.cursor is None else "now"\n',
        PROXIES,
    ),
    Mutation(
        "a viewer over SSE that was cut off by a proxy begins anew",
        "src/unbroken/server/http_messages.py",
        '            after = call.headers.get("last-event-id") or after\n',
        "            pass\n",
        PROXIES,
    ),
    # --- little memory (TC-EDGE-010) ---
    Mutation(
        "a slow viewer's frames are not withheld",
        CONNECTION,
        "        if wire.full or subscription in self._dirty:\n",
        "        if subscription in self._dirty:\n",
        MEMORY,
    ),
    Mutation(
        "what waits for a slow viewer has no bound",
        "src/unbroken/server/wire.py",
        "        return self._paused or self._out_bytes > self._max\n",
        "        return False\n",
        MEMORY,
    ),
    Mutation(
        "a slow reader's events are not withheld",
        "src/unbroken/server/direct.py",
        "        if self._flow.write_paused or self._transport.is_closing():\n",
        "        if self._transport.is_closing():\n",
        MEMORY,
    ),
    # --- little CPU (TC-EDGE-011) ---
    Mutation(
        "a server that is slow to speak is taken for dead",
        SESSION,
        "        self._silence_seconds = frame.silence_seconds\n",
        "        self._silence_seconds = frame.heartbeat_seconds / 20\n",
        THROTTLED,
    ),
    Mutation(
        "a viewer that is slow to speak is taken for dead",
        MANAGER,
        "if now - connection.heard_at > limits.silence_seconds_max:",
        "if now - connection.heard_at > limits.heartbeat_seconds / 2:",
        THROTTLED,
    ),
    Mutation(
        "heartbeats are not answered",
        SESSION,
        "                return [out.Send(Heartbeat())]\n",
        "                return []\n",
        THROTTLED,
    ),
)
