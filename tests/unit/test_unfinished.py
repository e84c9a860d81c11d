"""Who is let go when there is too much of unfinished frames, or one takes too long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unbroken.errors import OverloadedError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server.unfinished import Unfinished

pytestmark = pytest.mark.scenario("SEC-003")


class Socket:
    """A receiver that remembers why it was given up."""

    def __init__(self, subject: str = "alice", tenant: str = "acme") -> None:
        self.principal = Principal(tenant, subject)
        self.excused, self.dispensable = False, True
        self.given_up: list[OverloadedError | None] = []

    def give_up(self, error: OverloadedError | None) -> None:
        self.given_up.append(error)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_slowest_of_the_larger_frames_of_the_greediest_owner_is_let_go() -> None:
    time = Time()
    unfinished = Unfinished(replace(DEFAULT_LIMITS, unfinished_frames_bytes_max=1_000), now=time)
    small, slow, fast, other = Socket(), Socket(), Socket(), Socket("bob")
    unfinished.note(small, 10, fresh=True)
    unfinished.note(slow, 300, fresh=True)
    unfinished.note(other, 350, fresh=True)
    time.now = 10.0
    unfinished.note(fast, 300, fresh=True)
    assert unfinished.bytes == 960
    unfinished.note(fast, 400, fresh=False)
    assert [len(socket.given_up) for socket in (small, slow, fast, other)] == [0, 1, 0, 0]
    assert isinstance(slow.given_up[0], OverloadedError)
    assert unfinished.bytes == 760
    for socket in (small, fast, other):
        unfinished.note(socket, 0, fresh=True)
    unfinished.forget(slow)
    assert (len(unfinished), unfinished.bytes) == (0, 0)


def test_a_tenant_of_many_users_does_not_crowd_out_one_of_another_s() -> None:
    unfinished = Unfinished(replace(DEFAULT_LIMITS, unfinished_frames_bytes_max=1_000), now=Time())
    other, many = Socket("alice", "other"), [Socket(f"user {number}") for number in range(9)]
    unfinished.note(other, 300, fresh=True)
    for socket in many:
        unfinished.note(socket, 100, fresh=True)
    assert sum(len(socket.given_up) for socket in many) == 2
    assert other.given_up == []


def test_who_holds_more_than_one_owner_may_loses_a_part_and_the_operator_does_not() -> None:
    limits = replace(DEFAULT_LIMITS, unfinished_frames_bytes_max=1_000, owner_unfinished_frames_bytes_max=300)
    unfinished = Unfinished(limits, now=Time())
    alice, more, bob, operator = Socket(), Socket(), Socket("bob"), Socket()
    operator.principal = Principal()
    unfinished.note(bob, 150, fresh=True)
    assert not unfinished.crowded(bob)
    unfinished.note(bob, 151, fresh=True)
    unfinished.note(operator, 301, fresh=True)
    assert (unfinished.crowded(bob), unfinished.crowded(operator)) == (True, False)
    for socket in (alice, more):
        unfinished.note(socket, 160, fresh=True)
    (error,) = alice.given_up + more.given_up
    assert isinstance(error, OverloadedError)
    assert error.detail["limit"] == "owner_unfinished_frames_bytes_max"
    assert bob.given_up == operator.given_up == []
    assert unfinished.bytes == 151 + 301 + 160


def test_what_cannot_be_let_go_counts_and_makes_the_next_one_go() -> None:
    limits = replace(DEFAULT_LIMITS, unfinished_frames_bytes_max=1_000, owner_unfinished_frames_bytes_max=300)
    unfinished = Unfinished(limits, now=Time())
    at_work, new, small = Socket(), Socket(), Socket()
    at_work.dispensable = False
    unfinished.note(at_work, 290, fresh=True)
    unfinished.note(new, 20, fresh=True)
    assert (len(at_work.given_up), len(new.given_up)) == (0, 1)
    unfinished.note(small, 10, fresh=True)
    assert (small.given_up, unfinished.bytes) == ([], 300)
    unfinished.note(at_work, 301, fresh=True)
    assert (len(at_work.given_up), len(small.given_up)) == (0, 1)
    unfinished.note(at_work, 1_001, fresh=True)
    assert at_work.given_up == []


def test_time_in_which_we_did_not_read_is_nobodys_fault() -> None:
    time = Time()
    unfinished = Unfinished(DEFAULT_LIMITS, now=time)
    socket, held = Socket(), Socket()
    held.excused = True
    for one in (socket, held):
        unfinished.note(one, 10, fresh=True)
    time.now = DEFAULT_LIMITS.frame_seconds_max + 1
    unfinished.check(excused=True)
    time.now += DEFAULT_LIMITS.frame_seconds_max
    unfinished.check()
    assert socket.given_up == []
    time.now += 1
    unfinished.check()
    assert (socket.given_up, held.given_up) == ([None], [])
    assert unfinished.bytes == 10


def test_what_was_held_is_given_back_also_when_the_connection_has_other_rights_by_then() -> None:
    unfinished = Unfinished(DEFAULT_LIMITS, now=Time())
    socket = Socket()
    socket.principal = Principal()
    unfinished.note(socket, 10, fresh=True)
    socket.principal = Principal(grants=())
    unfinished.note(socket, 0, fresh=False)
    assert (len(unfinished), unfinished.bytes) == (0, 0)
