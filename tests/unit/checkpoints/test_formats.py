"""Notes, trees and checkpoints agree with the specifications, and with what others have published as examples."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.checkpoints.book import FILE_NAME, Book
from unbroken.checkpoints.checkpoint import NOTHING_BEFORE, Checkpoint
from unbroken.checkpoints.merkle import MerkleRange
from unbroken.checkpoints.notes import Signer, Verifier, generate, load_signer, text_of
from unbroken.errors import AlreadyExistsError, ConfigurationError, InvalidError

VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors" / "notes.json").read_text(encoding="utf-8"))
NOTE: dict[str, str] = VECTORS["note"]
FAKE = Signer("example.com/fake", bytes(32))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    path = tmp_path / "published-example.key"
    path.touch(mode=0o600)
    path.write_text(NOTE["signer"] + "\n")
    return load_signer(path)


def test_a_published_note_is_signed_byte_for_byte(signer: Signer) -> None:
    assert signer.sign(NOTE["text"]) == NOTE["note"]
    assert str(signer.verifier) == NOTE["verifier"]
    assert signer.secret_text().strip() == NOTE["signer"]
    assert "seed" not in repr(signer)


def test_a_published_note_is_verified_and_none_that_was_changed() -> None:
    verifier = Verifier.parse(NOTE["verifier"])
    assert verifier.signed(NOTE["note"])
    assert text_of(NOTE["note"]) == NOTE["text"]
    assert verifier.signed(FAKE.sign(NOTE["text"])[:-1] + "\n" + NOTE["note"].rpartition("\n\n")[2]), "one of several"
    for changed in (
        NOTE["note"].replace("answer", "question"),
        NOTE["note"].replace("x08go", "x08gp"),
        NOTE["note"].replace("JkuBS9", "JkuBS8"),
        NOTE["note"].replace("— Peter", "— Pater"),
        NOTE["text"],
        "",
        FAKE.sign(NOTE["text"]),
    ):
        assert not verifier.signed(changed), changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "a+b+c",
        NOTE["verifier"].replace("c74f", "c74e"),
        NOTE["verifier"][:-4],
        NOTE["verifier"] + "=",
        NOTE["signer"],
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        Verifier.parse(text)


def test_a_key_is_for_its_owner_alone_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    verifier = generate(path, "example.com/streams")
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signer(path).verifier == verifier == Verifier.parse(str(verifier))
    with pytest.raises(AlreadyExistsError):
        generate(path, "example.com/streams")
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="others may read"):
        load_signer(path)
    path.chmod(0o600)
    path.write_text(path.read_text().replace("streams", "other"))
    with pytest.raises(ConfigurationError, match="does not fit its name") as caught:
        load_signer(path)
    assert path.read_text().strip().rpartition("+")[2] not in str(caught.value)
    with pytest.raises(InvalidError):
        generate(tmp_path / "other", "no spaces")


def test_nobody_else_may_write_to_the_book_whatever_the_umask(signer: Signer, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Book(tmp_path / "notes", signer).open()
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "notes", tmp_path / "notes" / FILE_NAME)]
    assert modes == [0o755, 0o644]


def test_a_tree_has_the_published_roots() -> None:
    tree = MerkleRange()
    leaves = [sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in VECTORS["tree"]["leaves"]]
    for size, root in enumerate(VECTORS["tree"]["roots"]):
        assert tree.root().hex() == root
        tree.extend(leaves[size : size + 1])


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_tree_goes_on_from_what_was_kept_of_it(first: int, more: int) -> None:
    leaves = [sha256(bytes([number])).digest() for number in range(first + more)]
    tree = MerkleRange()
    tree.extend(leaves[:first])
    again = MerkleRange(first, tree.encoded)
    again.extend(leaves[first:])
    assert again.root() == by_definition(leaves)


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1, over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + by_definition(leaves[:half]) + by_definition(leaves[half:])).digest()


def checkpoint(size: int, **facts: Any) -> Checkpoint:
    tree = MerkleRange()
    tree.extend([sha256(bytes([number])).digest() for number in range(size)])
    one = Checkpoint(
        log="example.com/fake",
        epoch=7,
        base=0,
        tree=tree,
        head=bytes(range(32)),
        time_ms=5,
        serial=1,
        previous=NOTHING_BEFORE,
    )
    return replace(one, **facts)


@pytest.mark.parametrize(
    "one", [checkpoint(0), checkpoint(5), checkpoint(5, base=12, serial=3), checkpoint(64, ended="completed")]
)
def test_a_checkpoint_is_read_as_it_was_written(one: Checkpoint) -> None:
    text = one.text()
    again = Checkpoint.parse(text)
    assert again.text() == text
    assert (again.log, again.epoch, again.base, again.ended) == (one.log, one.epoch, one.base, one.ended)
    origin, size, root, *_ = text.split("\n")
    assert origin == ("example.com/fake/7" if one.base == 0 else "example.com/fake/7-from-12")
    assert int(size) == one.tree.size == one.seq - one.base
    assert len(root) == 44


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fake/7", "fake"),
        ("\n5\n", "\n05\n"),
        ("\n5\n", "\n7\n"),
        ("chain ", "chein "),
        ("time", "\ntime"),
        ("range ", "range A"),
        ("time 5", "time 05"),
        ("\nprevious AAAA", "\nprevious =AAA"),
        ("AAA=\n", "AAB=\n"),  # bits that stand for nothing
    ],
)
def test_what_is_no_checkpoint_is_refused(old: str, new: str) -> None:
    text = checkpoint(5).text()
    assert old in text
    with pytest.raises(InvalidError):
        Checkpoint.parse(text.replace(old, new, 1))
    other = replace(checkpoint(5), tree=checkpoint(6).tree).text().split("\n")
    mixed = text.split("\n")
    mixed[2] = other[2]
    with pytest.raises(InvalidError, match="root"):
        Checkpoint.parse("\n".join(mixed))
