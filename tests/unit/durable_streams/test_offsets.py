"""Offsets of the Durable Streams face: their one shape, their order, and what they mean across forks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import EpochMismatchError, InvalidError
from unbroken.messages import Epoch, Seq
from unbroken.server.durable_streams.offsets import BEGINNING, Ancestor, Lineage, Offset

NUMBERS = st.integers(min_value=0, max_value=10**16 - 1)
GOOD = "0000000000000007_0000000000000120"
ALONE = Lineage((Ancestor(Epoch(7), Seq(0)),))


def chain_of(*forks: tuple[int, int]) -> Lineage:
    """(epoch, fork seq) of a stream and its sources."""
    return Lineage(tuple(Ancestor(Epoch(epoch), Seq(seq)) for epoch, seq in forks))


@given(NUMBERS, NUMBERS)
def test_an_offset_reads_back_as_itself(epoch: int, seq: int) -> None:
    assert Offset.parse(str(Offset(epoch, seq))) == Offset(epoch, seq)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_offsets_sort_as_text_like_their_numbers(epoch: int, seq: int, other_epoch: int, other_seq: int) -> None:
    one, other = Offset(epoch, seq), Offset(other_epoch, other_seq)
    assert (str(one) < str(other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "now",
        "7:120",
        GOOD + "\n",
        "\n" + GOOD,
        " " + GOOD,
        GOOD + "\0",
        GOOD.replace("_", "-"),
        GOOD.replace("_", ""),
        GOOD + "0",
        GOOD[1:],
        "+000000000000007_0000000000000120",
        "000000000000_007_0000000000000120",
        "\u0660" * 16 + "_" + "\u0661" * 16,
        GOOD + ",0",
        "../" + GOOD,
    ],
)
def test_what_is_not_exactly_an_offset_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        Offset.parse(text)


def test_the_beginning_is_sixteen_zeros_twice() -> None:
    assert str(BEGINNING) == "0000000000000000_0000000000000000"


def test_a_stream_without_a_source_has_one_epoch() -> None:
    assert str(ALONE.offset(Seq(120))) == GOOD
    assert ALONE.seq(Offset.parse(GOOD)) == 120
    assert ALONE.offset(Seq(0)) == Offset(7, 0)


@pytest.mark.parametrize("epoch", [0, 6, 8, 9_999_999_999_999_999])
def test_an_offset_of_another_epoch_is_refused(epoch: int) -> None:
    with pytest.raises(EpochMismatchError):
        ALONE.seq(Offset(epoch, 1))


def test_a_fork_gives_inherited_places_the_epoch_of_who_wrote_them() -> None:
    fork = chain_of((9, 5), (7, 0))
    assert [str(fork.offset(Seq(seq)))[15] for seq in (0, 5, 6)] == ["7", "7", "9"]


def test_a_fork_of_a_fork_looks_through_a_source_that_wrote_nothing_it_holds() -> None:
    # the newest branched off at 3, in front of the place where its source had branched off itself
    fork = chain_of((12, 3), (9, 5), (7, 0))
    assert [fork.offset(Seq(seq)).epoch for seq in (0, 3, 4)] == [7, 7, 12]
    deeper = chain_of((12, 8), (9, 5), (7, 0))
    assert [deeper.offset(Seq(seq)).epoch for seq in (5, 6, 8, 9)] == [7, 9, 9, 12]


@given(st.lists(st.integers(min_value=0, max_value=12), max_size=4), st.integers(min_value=0, max_value=20))
def test_every_place_of_a_lineage_reads_back_and_they_sort(forks: list[int], seq: int) -> None:
    places = [*forks, 0]
    lineage = chain_of(*((len(places) - depth, place) for depth, place in enumerate(places)))
    assert lineage.seq(lineage.offset(Seq(seq))) == seq
    assert str(lineage.offset(Seq(seq))) < str(lineage.offset(Seq(seq + 1)))


def test_a_place_of_the_source_behind_the_fork_is_foreign() -> None:
    fork = chain_of((9, 5), (7, 0))
    assert fork.seq(Offset(7, 5)) == 5
    with pytest.raises(EpochMismatchError):
        fork.seq(Offset(7, 6))


def test_the_own_epoch_is_understood_for_inherited_places_too() -> None:
    assert chain_of((9, 5), (7, 0)).seq(Offset(9, 3)) == 3
