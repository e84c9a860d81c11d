"""Owns the mistakes about output that waits in memory and in a file, which our tests must notice.

`tests.mutations` joins them to its own; what one is and how it is tried is said there.
"""

from __future__ import annotations

from typing import Final

from tests.support.mutating import Mutation

__all__ = ["SPILL_MUTATIONS"]

SPILL = "src/unbroken/client/spill.py"
OUTBOX = "src/unbroken/client/outbox.py"

SPILL_TESTS = ("tests/unit/cli/test_outbox.py",)

SPILL_MUTATIONS: Final = (
    # --- what waits is whole, or is known to be damaged ---
    Mutation(
        "a damaged record is believed",
        SPILL,
        "        return None if len(payload) < length or zlib.crc32(payload) != checksum else payload\n",
        "        return None if len(payload) < length else payload\n",
        SPILL_TESTS,
    ),
    Mutation(
        "what another version wrote is cut off",
        SPILL,
        "        if file._payload(end) is not None:\n",
        "        if False:\n",
        SPILL_TESTS,
    ),
    Mutation(
        "a write that failed half-way stays",
        SPILL,
        "        except OSError:\n            self.truncate(start)\n            raise\n",
        "        except OSError:\n            raise\n",
        SPILL_TESTS,
    ),
    Mutation(
        "the torn end of a file is kept",
        SPILL,
        "        file.truncate(end)\n        return file\n",
        "        return file\n",
        SPILL_TESTS,
    ),
    Mutation(
        "two processes deliver one file",
        SPILL,
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        SPILL_TESTS,
    ),
    # --- it is bounded, in order, and what it cannot hold is said ---
    Mutation(
        "what waits in a file has no bound",
        OUTBOX,
        "        if self._file.size + len(payload) > bytes_max:\n            return 0\n",
        "",
        SPILL_TESTS,
    ),
    Mutation(
        "what was dropped is not said in the stream",
        OUTBOX,
        "            self._gap_bytes += size\n            self.dropped_bytes += size\n",
        "            self.dropped_bytes += size\n",
        SPILL_TESTS,
    ),
    Mutation(
        "what is new overtakes what waits in the file",
        OUTBOX,
        "        if end and whole and room:\n            self._remember(payload, end)\n",
        "        if end and room:\n            self._remember(payload, end)\n",
        SPILL_TESTS,
    ),
    Mutation(
        "the room of what was delivered is not used again",
        OUTBOX,
        "            self._consumed = max(self._consumed, first.end)\n",
        "",
        SPILL_TESTS,
    ),
    Mutation(
        "what came before a continuation is sent there too",
        OUTBOX,
        "isinstance(record, SpillAppend) and record.seq >= self.target.base:",
        "isinstance(record, SpillAppend):",
        SPILL_TESTS,
    ),
    Mutation(
        "what is sent is forgotten before it is acknowledged",
        OUTBOX,
        "            return _append_decoder.decode(self._memory[0].payload) if self._memory else None\n",
        "            return _append_decoder.decode(self._memory.popleft().payload) if self._memory else None\n",
        SPILL_TESTS,
    ),
)
