"""Salts come from seeds, in whatever order they are asked for; those that were taken away are in no seed that is left."""

from __future__ import annotations

from hashlib import sha512

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, encode_message
from unbroken.protocol.chain import chain, erased, genesis, is_erased, links
from unbroken.protocol.salts import NO_SALTS, SALT_BYTES, Salts

ONE, OTHER = bytes(range(16)), bytes(range(16, 32))
SEQ_MAX = 2**32 - 1


def by_definition(seed: bytes, seq: int) -> bytes:
    """The salt as PROTOCOL.md 5.2 says it."""
    for depth in range(16):
        which = seq // 4 ** (15 - depth) % 4 * SALT_BYTES
        seed = sha512(seed).digest()[which : which + SALT_BYTES]
    return seed


STRETCHES = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 9)), max_size=4)


@given(st.sampled_from([0, 1, 60, 2**20 - 30, SEQ_MAX - 79]), STRETCHES, st.integers(0, 70) | st.none(), st.data())
def test_every_salt_is_as_defined_and_those_taken_away_are_gone(
    base: int, stretches: list[tuple[int, int]], fork: int | None, data: st.DataObject
) -> None:
    salts, branch, gone = Salts.fresh(ONE), SEQ_MAX, set[int]()
    if fork is not None:
        branch = base + fork
        salts = salts.upto(branch).and_then(Salts.fresh(OTHER, branch + 1))
    for start, more in stretches:
        salts = salts.without(base + start, base + start + more)
        gone |= set(range(base + start, base + start + more + 1))
    salts = Salts(salts.encoded)
    for seq in data.draw(st.permutations(range(base, base + 80))):
        wanted = b"" if seq in gone else by_definition(ONE if seq <= branch else OTHER, seq)
        assert salts.salt(seq) == wanted, seq


def test_taking_away_one_leaves_no_seed_above_it() -> None:
    salts = Salts.fresh(ONE).without(5, 5)
    above, seed = {ONE}, ONE
    for depth in range(16):
        which = 5 // 4 ** (15 - depth) % 4 * SALT_BYTES
        seed = sha512(seed).digest()[which : which + SALT_BYTES]
        above.add(seed)
    assert not [one for one in above if one in salts.encoded]
    assert len(salts.encoded) == 48 * 21


@pytest.mark.parametrize("encoded", [b"x", bytes(20), bytes(4) + b"\x11" + bytes(16), bytes(21) * 2])
def test_what_is_no_row_of_seeds_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="seeds"):
        Salts(encoded)


def test_an_erased_message_keeps_its_leaf_and_every_head_stays() -> None:
    salts, messages = Salts.fresh(ONE), [b'{"text":"%d"}' % number for number in range(1, 8)]
    start = genesis("t", "n", 1)
    head, leaves = links(start, 1, messages, salts)
    stub = erased(leaves[2], 17, continues=True)
    assert is_erased(stub)
    assert stub == b'{"leaf":"%b","kind":"erased","time":17,"continues":true}' % leaves[2].hex().encode()
    assert chain(start, 1, [*messages[:2], stub, *messages[3:]], salts.without(3, 3)) == head
    assert chain(start, 1, messages, salts.without(3, 3)) != head, "without its salt nobody can check a guess"


@pytest.mark.parametrize("stub", [b'{"leaf":"', b'{"leaf":"00"}', b'{"leaf":"' + b"zz" * 32 + b'"}', b'{"leaf":"\xff'])
def test_what_only_looks_erased_fits_nothing(stub: bytes) -> None:
    assert chain(bytes(32), 1, [stub], NO_SALTS) not in {chain(bytes(32), 1, [erased(bytes(32), 0)]), bytes(32)}


def test_no_producer_can_append_what_looks_erased() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"leaf":"00","kind":"erased"}', type=NewMessage)
    encoded = encode_message(NewMessage(kind="erased", text=""), time_ms=1, producer=None, limits=DEFAULT_LIMITS)
    assert not is_erased(encoded)
