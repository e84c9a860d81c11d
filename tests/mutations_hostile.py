"""Owns the mistakes about hostile peers, greedy owners, edited databases and erasing that our tests must notice.

`tests.mutations` joins them to its own; what one is and how it is tried is said there.
"""

from __future__ import annotations

from typing import Final

from tests.support.mutating import Mutation

__all__ = ["HOSTILE_MUTATIONS"]

PATIENCE = "src/unbroken/server/patience.py"
UNDELIVERED = "src/unbroken/server/undelivered.py"
INBOX = "src/unbroken/server/inbox.py"
UNFINISHED = "src/unbroken/server/unfinished.py"
BODIES = "src/unbroken/server/bodies.py"
APPENDS = "src/unbroken/server/appends.py"
TRANSPORT = "src/unbroken/server/transport.py"
ENCRYPTED = "src/unbroken/server/encrypted.py"
LISTENING = "src/unbroken/server/listening.py"
REPETITIONS = "src/unbroken/observe/repetitions.py"
ENTITLED = "src/unbroken/quotas.py"
FRAMES = "src/unbroken/server/frames.py"
TICKETS = "src/unbroken/auth/tickets.py"
WRITER = "src/unbroken/store/sqlite/writer.py"
APPLY = "src/unbroken/store/apply.py"
LINEAGE = "src/unbroken/store/lineage.py"
COMPARE = "src/unbroken/checkpoints/compare.py"

AROUND = "tests/integration/http/test_around_bodies.py"
UNREAD = "tests/integration/http/test_unread_answers.py"
WAITING = "tests/integration/websocket/test_waiting_frames.py"
UNFINISHED_TESTS = ("tests/unit/test_unfinished.py",)
BODY_TESTS = "tests/integration/http/test_slow_bodies.py"
HOSTILE = "tests/integration/websocket/test_hostile.py"
FRAME_TESTS = ("tests/unit/server/test_frames.py",)
TICKET_TESTS = "tests/unit/auth/test_tickets.py"
ERASURE = "tests/integration/secrets/test_erasure.py"
QUOTAS = "tests/integration/access/test_quotas.py"
TAMPERING = "tests/integration/store/test_tampering.py"

HOSTILE_MUTATIONS: Final = (
    # --- what one owner and one tenant may take ---
    Mutation(
        "appends that come together take more messages than the rate leaves",
        APPENDS,
        "int(min(self.messages_max, headroom.messages))",
        "self.messages_max",
        (f"{QUOTAS}::test_appends_that_come_together_are_no_more_in_a_second_than_one_by_one",),
    ),
    Mutation(
        "appends that come together take more room than there is",
        APPENDS,
        "int(min(self.bytes_max, headroom.size_bytes))",
        "self.bytes_max",
        (f"{QUOTAS}::test_appends_that_come_together_take_no_more_room_than_one_by_one",),
    ),
    Mutation(
        "too much in all costs the greediest user, of whatever tenant",
        UNFINISHED,
        "((tenants[each.key[0]], each.bytes), found)",
        "((0, each.bytes), found)",
        UNFINISHED_TESTS,
    ),
    # --- what one peer may have us keep ---
    Mutation(
        "what is around the parts of a body has no bound",
        PATIENCE,
        "        if self._around > self.bytes_max and",
        "        if False and",
        (f"{AROUND}::test_what_is_around_a_body_without_end_ends_the_connection",),
    ),
    Mutation(
        "the size of a chunk is held against its sender",
        PATIENCE,
        "AROUND_BYTES_MAX: Final = 8\n",
        "AROUND_BYTES_MAX: Final = 0\n",
        (f"{AROUND}::test_a_body_in_the_smallest_chunks_and_with_a_trailer_is_taken",),
    ),
    Mutation(
        "an answer that nobody takes waits for ever",
        UNDELIVERED,
        "        else:\n            self._transport.abort()\n",
        "        else:\n            self._wait()\n",
        (f"{UNREAD}::test_who_takes_nothing_is_cut_off",),
    ),
    Mutation(
        "the end of a small answer is looked after by nobody",
        PATIENCE,
        "        super().on_response_complete()\n        self._undelivered.watch()\n",
        "        super().on_response_complete()\n",
        (f"{UNREAD}::test_who_leaves_the_end_of_a_small_answer_is_cut_off_too",),
    ),
    Mutation(
        "who reads slowly is taken for somebody who reads nothing",
        UNDELIVERED,
        "            return taken - self._taken >= TAKEN_BYTES_MIN\n",
        "            return False\n",
        ("tests/integration/http/test_slow_readers.py",),
    ),
    # --- frames that wait, and frames that cost us more than their sender ---
    Mutation(
        "frames that wait count for nobody",
        INBOX,
        "        self._unfinished.note(self, size_bytes, fresh=False)\n",
        "        pass\n",
        (f"{WAITING}::test_who_has_too_much_wait_on_many_connections_loses_some_and_nobody_else_does",),
    ),
    Mutation(
        "frames are read faster than handled however much waits",
        INBOX,
        "        if enough or self._unfinished.crowded(self):\n",
        "        if enough:\n",
        (f"{WAITING}::test_whoever_has_much_waiting_is_read_no_further_until_it_is_handled_and_loses_nothing",),
    ),
    Mutation(
        "one owner may hold what all may",
        UNFINISHED,
        "            if is_charged(principal):\n",
        "            if False:\n",
        UNFINISHED_TESTS,
    ),
    Mutation(
        "all owners together may hold without a bound",
        UNFINISHED,
        "        while self.bytes > self._limits.unfinished_frames_bytes_max:\n",
        "        while False:\n",
        UNFINISHED_TESTS,
    ),
    Mutation(
        "fragments with nothing in them cost nothing",
        TRANSPORT,
        "        if len(frame.data) < FRAGMENT_BYTES_MIN:\n",
        "        if False:\n",
        (f"{HOSTILE}::test_a_flood_of_small_fragments_ends_the_connection_and_a_few_do_not",),
    ),
    Mutation(
        "what comes behind our close is looked at without end",
        TRANSPORT,
        "        if self._late > LATE_FRAMES_MAX and not over:\n",
        "        if False:\n",
        (f"{HOSTILE}::test_what_comes_without_end_behind_our_close_is_not_looked_at",),
    ),
    # --- bodies ---
    Mutation(
        "a body counts only until it is whole",
        BODIES,
        "                        held.callback(self._leave, principal, counted)\n                        counted = 0\n",
        "",
        (f"{BODY_TESTS}::test_a_body_counts_until_its_request_is_done_also_while_that_waits_for_a_rate",),
    ),
    Mutation(
        "what a body has held is never given back",
        BODIES,
        "                        held.callback(self._leave, principal, counted)\n",
        "",
        (BODY_TESTS,),
    ),
    Mutation(
        "a revoked key is good for a body that is half here",
        BODIES,
        "        self._live.add(sender)\n",
        "",
        (f"{BODY_TESTS}::test_a_body_is_not_taken_whose_credential_ends_while_it_comes",),
    ),
    # --- tickets ---
    Mutation(
        "who comes when all tickets are out is sent away",
        TICKETS,
        "        if has >= has_most:\n",
        "        if True:\n",
        (f"{TICKET_TESTS}::test_who_has_most_tickets_makes_room_for_others",),
    ),
    Mutation(
        "the users of one tenant keep those of another without tickets",
        TICKETS,
        "        by_owner = most[0] == asking[0]\n",
        "        by_owner = True\n",
        (f"{TICKET_TESTS}::test_between_tenants_it_counts_what_each_has_in_all",),
    ),
    # --- what is to be destroyed ---
    Mutation(
        "unused parts of pages keep what was erased",
        WRITER,
        "            self._db.rewrite()\n",
        "",
        (f"{ERASURE}::test_no_page_keeps_copies_of_rows_that_moved_to_another",),
    ),
    Mutation(
        "the log of the database keeps what was erased",
        WRITER,
        "        checkpointer.empty(self._db)\n",
        "",
        (f"{ERASURE}::test_nothing_of_a_person_is_left_and_the_chain_holds",),
    ),
    Mutation(
        "a deleted source keeps what it kept for an erased fork",
        APPLY,
        "        gone = [entry, *_kept_for(tables, entry)]\n",
        "        gone = [entry]\n",
        (f"{ERASURE}::test_what_a_deleted_source_keeps_for_erased_forks_alone_is_erased_with_the_last_of_them",),
    ),
    Mutation(
        "an erased fork takes what another fork still shows",
        APPLY,
        "        if _readable(tables, source, without=entry):\n            break\n",
        "",
        (f"{ERASURE}::test_what_a_deleted_source_keeps_for_erased_forks_alone_is_erased_with_the_last_of_them",),
    ),
    Mutation(
        "an erasure that was refused is told as done",
        "src/unbroken/erasure.py",
        "                raise result.error\n",
        "                pass\n",
        (f"{ERASURE}::test_forks_that_somebody_has_made_a_circle_of_are_corrupt_and_everything_else_is_erased",),
    ),
    # --- what protects an application, and what shows that somebody edited the database ---
    Mutation(
        "a redactor is forgotten when something else protects too",
        "src/unbroken/embed.py",
        "        self._redactor = self._redactor if redactor is None else redactor\n",
        "        self._redactor = redactor\n",
        (
            "tests/integration/secrets/test_redaction.py"
            "::test_what_protects_an_application_stays_when_something_else_protects_it_too",
        ),
    ),
    Mutation(
        "keys for a store of the application's own are left unused",
        "src/unbroken/embed.py",
        "        if wrapping is not None and not isinstance(self._store, str):\n",
        "        if False:\n",
        (
            "tests/integration/secrets/test_redaction.py"
            "::test_keys_for_a_store_of_the_applications_own_are_not_left_unused",
        ),
    ),
    Mutation(
        "a stream verifies under another name",
        LINEAGE,
        "    return genesis(stream.tenant, stream.name, stream.epoch)\n",
        "    return stream.genesis\n",
        (f"{TAMPERING}::test_a_stream_under_another_name_and_one_that_is_not_there",),
    ),
    Mutation(
        "a stream is taken for a fork because its row says so",
        LINEAGE,
        "            return None\n",
        "            return stream.genesis\n",
        (f"{TAMPERING}::test_a_stream_is_not_taken_for_a_fork_because_its_row_says_so",),
    ),
    Mutation(
        "a fork may be its own source",
        LINEAGE,
        "    if source.id >= fork.id:\n        raise CorruptError(",
        "    if False:\n        raise CorruptError(",
        (
            "tests/integration/durable_streams/test_positions.py"
            "::test_a_fork_that_somebody_has_made_its_own_source_is_corrupt",
        ),
    ),
    Mutation(
        "checkpoints cover what is said to be trimmed",
        COMPARE,
        "        return Comparison(self._covered)\n",
        "        return Comparison(self._sound)\n",
        (f"{TAMPERING}::test_no_checkpoint_covers_what_stands_behind_messages_that_are_said_to_be_trimmed",),
    ),
    # --- whole text frames, read without the library's parser ---
    Mutation(
        "a text between fragments is taken",
        FRAMES,
        "if self.current_size is None and between_frames(self)",
        "if between_frames(self)",
        FRAME_TESTS,
    ),
    Mutation(
        "what looks like a text inside another frame is taken",
        FRAMES,
        "if self.current_size is None and between_frames(self)",
        "if self.current_size is None",
        FRAME_TESTS,
    ),
    Mutation("a text behind a close is taken", FRAMES, " and conn.state is State.OPEN", "", FRAME_TESTS),
    Mutation("a text may be longer than any", FRAMES, "length > most or ", "", FRAME_TESTS),
    Mutation(
        "a text of eight bytes' length is of 127", FRAMES, "<= length < LENGTH", "<= length <= 1 + LENGTH", FRAME_TESTS
    ),
    Mutation("a text need have no mask", FRAMES, "elif not 0 <= length", "elif not -128 <= length", FRAME_TESTS),
    Mutation("part of a text is the whole", FRAMES, " or end > size", "", FRAME_TESTS),
    Mutation("every text goes through the library's parser", FRAMES, "data[start] == WHOLE_TEXT", "False", FRAME_TESTS),
    # --- strangers, before they have said who they are, and after a restart ---
    Mutation(
        "who has no room left finds some after a restart",
        ENTITLED,
        "            return\n        await self.look(principal)\n",
        "            return\n",
        (f"{QUOTAS}::test_the_first_append_after_a_restart_finds_no_room_where_there_is_none",),
    ),
    Mutation(
        "new keys of TLS cost nothing",
        ENCRYPTED,
        "            if budget.left(self._now()) < 0:",
        "            if False:",
        ("tests/integration/http/test_barren_records.py",),
    ),
    Mutation(
        "half handshakes of TLS are no connections",
        LISTENING,
        "            silent.add(self, transport)\n",
        "",
        ("tests/integration/http/test_slow_heads.py",),
    ),
    Mutation(
        "each connection of nonsense has a line of the log",
        REPETITIONS,
        "various=(various, various)) is not None",
        "various=(various, various)) is not None or True",
        ("tests/integration/http/test_log_floods.py",),
    ),
    Mutation(
        "a path may hide where it goes",
        "src/unbroken/server/malformed.py",
        'if b"%" in _route(target):',
        "if False:",
        ("tests/integration/http/test_ambiguous.py",),
    ),
)
