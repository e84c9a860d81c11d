"""What a principal may do: grants against a model that looks at each of them by itself, and what is told to whom."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.parts import ALICE, BOB, Parts, running_parts
from unbroken.errors import ForbiddenError, NotFoundError, UnauthorizedError, UnbrokenError
from unbroken.gate import admit, admit_session, check_creating, check_looking, check_session
from unbroken.identity import Grant, Principal, Verb
from unbroken.messages import Epoch
from unbroken.requests import NewStream
from unbroken.store.base import DeleteStream, StreamFilter
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.scenario("SEC-002")
TEXTS = st.text("ab/", max_size=3)
GRANTS = st.builds(
    Grant,
    name=TEXTS,
    verbs=st.frozensets(st.sampled_from(list(Verb))),
    prefix=st.booleans(),
    epoch=st.none() | st.integers(1, 3),
)
MANY = st.lists(GRANTS, max_size=4).map(tuple)


@dataclasses.dataclass(frozen=True)
class Thing:
    """A stream as far as the gate looks at it."""

    epoch: Epoch


def allowed(grants: tuple[Grant, ...], verb: Verb, name: str, epoch: int | None) -> bool:
    """The naive model: by each single grant, spelled out."""
    for grant in grants:
        right_name = name[: len(grant.name)] == grant.name if grant.prefix else name == grant.name
        right_epoch = True if grant.epoch is None else epoch is not None and grant.epoch == epoch
        if right_name and right_epoch and verb in grant.verbs:
            return True
    return False


@given(MANY, st.sampled_from(list(Verb)), TEXTS, st.none() | st.integers(1, 3))
def test_the_gate_lets_through_what_the_model_allows_and_tells_the_rest_what_it_may_know(
    grants: tuple[Grant, ...], verb: Verb, name: str, epoch: int | None
) -> None:
    principal = Principal(grants=grants)
    found = None if epoch is None else Thing(Epoch(epoch))
    outcome: type[UnbrokenError] | None = None
    try:
        assert admit(principal, name, found, verb) is found
    except UnbrokenError as error:
        outcome = type(error)
    if found is None:
        assert outcome is NotFoundError
    elif allowed(grants, verb, name, epoch):
        assert outcome is None
    else:
        assert outcome is (ForbiddenError if allowed(grants, Verb.READ, name, epoch) else NotFoundError)


@given(MANY, st.sampled_from(list(Verb)), TEXTS)
def test_nobody_looks_where_nothing_could_be_given_and_everybody_else_does(
    grants: tuple[Grant, ...], verb: Verb, name: str
) -> None:
    principal = Principal(grants=grants)
    outcomes = set()
    for epoch in (None, 1, 2, 3):
        try:
            admit(principal, name, Thing(Epoch(epoch or 7)), verb)
            outcomes.add("given")
        except UnbrokenError as error:
            outcomes.add(error.code)
    if outcomes == {"not_found"}:
        with pytest.raises(NotFoundError):
            check_looking(principal, name, verb)
    else:
        check_looking(principal, name, verb)


@given(MANY, st.sampled_from(list(Verb)), TEXTS)
def test_creating_and_sessions_follow_the_model_without_looking(
    grants: tuple[Grant, ...], verb: Verb, name: str
) -> None:
    principal = Principal(grants=grants)
    if allowed(grants, verb, name, None):
        check_creating(principal, name, verb)
    else:
        with pytest.raises(ForbiddenError if allowed(grants, Verb.READ, name, None) else NotFoundError):
            check_creating(principal, name, verb)
    prefixes = tuple(grant for grant in grants if grant.prefix)
    may, reads = (allowed(prefixes, wanted, name, None) for wanted in (verb, Verb.READ))
    assert principal.may_session(verb, name) is may
    if may:
        check_session(principal, name, verb)
        assert admit_session(principal, name, "there", verb) == "there"
    else:
        with pytest.raises(ForbiddenError):
            check_session(principal, name, verb)
        with pytest.raises(ForbiddenError if reads else NotFoundError):
            admit_session(principal, name, "there", verb)


@given(MANY, TEXTS)
def test_what_may_not_be_read_is_told_of_in_the_words_of_what_is_not_there(
    grants: tuple[Grant, ...], name: str
) -> None:
    told = []
    for principal, found in ((Principal(grants=grants), Thing(Epoch(2))), (Principal(), None)):
        try:
            admit(principal, name, found, Verb.READ)
        except NotFoundError as error:
            told.append((str(error), error.detail, error.cure))
    assert len(told) == 1 or told[0] == told[1]


@st.composite
def handed_on(draw: st.DrawFn) -> tuple[Grant, Grant]:
    """A grant that somebody has, and one much like it."""
    own = draw(
        st.builds(
            Grant,
            name=st.text("ab/", max_size=2),
            verbs=st.frozensets(st.sampled_from(list(Verb)), min_size=3),
            prefix=st.booleans(),
            epoch=st.none() | st.integers(1, 2),
        )
    )
    name = own.name + draw(st.sampled_from(["", "a", "/"]))
    verbs = draw(st.frozensets(st.sampled_from([*sorted(own.verbs), Verb.READ]), min_size=1))
    return own, Grant(name, verbs, prefix=draw(st.booleans()), epoch=draw(st.sampled_from([own.epoch, None, 1])))


@settings(max_examples=300)
@given(handed_on(), st.lists(GRANTS, max_size=1))
def test_narrowing_never_widens(pair: tuple[Grant, Grant], others: list[Grant]) -> None:
    """Whatever is handed on, to whichever stream, epoch and session it is put: nothing that its giver might not do."""
    own, handed = pair
    grants = (*others, own)
    giver, heir = Principal(grants=grants), Principal(grants=(handed,))
    if not giver.may_hand_on(handed):
        return
    for name in (handed.name, f"{handed.name}b"):
        for verb in Verb:
            for epoch in (None, 1, 2, 3):
                if heir.may(verb, name, epoch):
                    assert allowed(grants, verb, name, epoch)
                    assert allowed(grants, Verb.MANAGE, name, epoch)
            assert giver.may_session(verb, name) or not heir.may_session(verb, name)


async def _made(parts: Parts) -> None:
    for name in ("a/1", "a/2", "b", "open"):
        await parts.streams.create(ALICE, name, NewStream(session="a/s" if name != "open" else None))


def alice(*grants: Grant, expires_ms: int | None = None) -> Principal:
    return dataclasses.replace(ALICE, actor="helper", grants=grants, expires_ms=expires_ms)


@pytest.mark.anyio
async def test_a_listing_gives_what_may_be_read_and_a_session_is_spoken_of_by_a_prefix() -> None:
    async with running_parts(MemoryStore()) as parts:
        await _made(parts)

        async def names(principal: Principal) -> list[str]:
            found = await parts.streams.list(principal, StreamFilter(), limit=10, page=None)
            return [info.name for info in found.items]

        reader = alice(Grant("a/", frozenset({Verb.READ}), prefix=True), Grant("b", frozenset({Verb.APPEND})))
        assert await names(reader) == ["a/2", "a/1"]
        assert await names(alice()) == []
        assert await names(alice(Grant("", frozenset(Verb), prefix=True))) == ["open", "b", "a/2", "a/1"]
        assert (await parts.streams.get_session(reader, "a/s", may=Verb.READ)).name == "a/s"
        with pytest.raises(ForbiddenError):
            await parts.streams.delete_session(reader, "a/s")
        with pytest.raises(NotFoundError):
            await parts.streams.get_session(alice(Grant("a/s", frozenset(Verb))), "a/s", may=Verb.READ)
        with pytest.raises(ForbiddenError):
            await parts.streams.put_session(alice(Grant("a/s", frozenset(Verb))), "a/s")
        found = await parts.streams.list_sessions(reader, limit=10, page=None)
        assert [session.name for session in found.items] == ["a/s"]


@pytest.mark.anyio
async def test_who_may_append_creates_but_not_into_a_session_of_others_and_at_an_epoch_only_that_one() -> None:
    async with running_parts(MemoryStore()) as parts:
        await _made(parts)
        appender = alice(Grant("n", frozenset({Verb.APPEND})))
        assert (await parts.streams.create(appender, "n", NewStream())).created
        with pytest.raises(ForbiddenError):
            await parts.streams.create(appender, "n", NewStream(session="a/s"))
        with pytest.raises(NotFoundError):
            await parts.streams.create(appender, "other", NewStream())
        with pytest.raises(NotFoundError):
            await parts.streams.create(appender, "b", NewStream())
        with pytest.raises(ForbiddenError):
            await parts.streams.create(alice(Grant("x", frozenset({Verb.READ}))), "x", NewStream())
        there = await parts.streams.get(ALICE, "open", may=Verb.READ)
        bound = alice(Grant("open", frozenset({Verb.APPEND}), epoch=there.epoch))
        again = await parts.streams.create(bound, "open", NewStream())
        assert (again.created, again.stream.id) == (False, there.id)
        await parts.log.write(DeleteStream(stream=there.id, epoch=there.epoch))
        with pytest.raises(NotFoundError):
            await parts.streams.create(bound, "open", NewStream())
        await parts.streams.create(ALICE, "open", NewStream())
        with pytest.raises(NotFoundError):
            await parts.streams.get(bound, "open", may=Verb.APPEND)
        assert (await parts.streams.get(ALICE, "n", may=Verb.READ)).owner == ALICE.subject


@pytest.mark.anyio
async def test_a_principal_whose_time_is_over_may_do_nothing() -> None:
    async with running_parts(MemoryStore()) as parts:
        await _made(parts)
        now = parts.streams.clock.now_ms()
        over, good = alice(Grant("", frozenset(Verb), prefix=True), expires_ms=now), alice(expires_ms=now + 1)
        for call in (
            parts.streams.get(over, "b", may=Verb.READ),
            parts.streams.create(over, "c", NewStream()),
            parts.streams.list(over, StreamFilter(), limit=1, page=None),
            parts.streams.list_sessions(over, limit=1, page=None),
            parts.streams.get_session(over, "a/s", may=Verb.READ),
            parts.streams.put_session(over, "new"),
        ):
            with pytest.raises(UnauthorizedError):
                await call
        assert (await parts.streams.list(good, StreamFilter(), limit=1, page=None)).items == ()
        assert (await parts.streams.list(BOB, StreamFilter(), limit=1, page=None)).items == ()
