"""Keys and what they seal: nothing opens as something else, no nonce comes twice, and a wrong key is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.errors import ConfigurationError, CorruptError
from unbroken.store.keys import MasterKeys, WrongKeyError, new_master_key
from unbroken.store.sealing import Keyring, StreamKey


def ring() -> Keyring:
    return Keyring(MasterKeys.parse(new_master_key()))


def test_what_was_sealed_opens_as_itself_and_as_nothing_else() -> None:
    key, wrapped = ring().fresh(7, 3)
    sealed = key.seal(b"planted", b"chunk 1")
    assert key.open(sealed, b"chunk 1") == b"planted"
    assert b"planted" not in sealed + wrapped
    for wrong in (
        sealed[:-1],
        sealed[:5],
        b"",
        bytes([sealed[0] ^ 1]) + sealed[1:],
        sealed[:-1] + bytes([sealed[-1] ^ 1]),
    ):
        with pytest.raises(CorruptError):
            key.open(wrong, b"chunk 1")
    with pytest.raises(CorruptError):
        key.open(sealed, b"chunk 2")


def test_a_key_is_that_of_one_stream_and_one_epoch() -> None:
    keys = ring()
    _, wrapped = keys.fresh(7, 3)
    for stream, epoch in ((7, 4), (8, 3)):
        with pytest.raises(CorruptError):
            keys.unwrapped(wrapped, stream, epoch)
    text = keys.unwrapped(wrapped, 7, 3).seal_text("{}", b"metadata")
    assert Keyring(keys.wrapping).unwrapped(wrapped, 7, 3).open_text(text, b"metadata") == "{}"
    with pytest.raises(CorruptError):
        keys.unwrapped(wrapped, 7, 3).open_text(text, b"reason")
    with pytest.raises(CorruptError):
        keys.unwrapped(wrapped, 7, 3).open_text("sealed:*", b"reason")


def test_what_is_sealed_is_bound_to_its_stream_and_epoch_besides_its_key() -> None:
    key = bytes(range(32))
    sealed = StreamKey(key, 7, 3).seal(b"planted", b"chunk 1")
    for stream, epoch in ((7, 4), (8, 3)):
        with pytest.raises(CorruptError):
            StreamKey(key, stream, epoch).open(sealed, b"chunk 1")


def test_the_same_thing_sealed_again_has_another_nonce() -> None:
    key, _ = ring().fresh(1, 1)
    assert len({key.seal(b"the same", b"x")[:12] for _ in range(1_000)}) == 1_000


def test_master_keys_change_and_what_is_wrapped_stays_readable() -> None:
    old, new = new_master_key(), new_master_key()
    key, wrapped = Keyring(MasterKeys.parse(old)).fresh(1, 1)
    sealed = key.seal(b"x", b"")
    both = Keyring(MasterKeys.parse(f"# changed\n{new}\n\n{old}\n"))
    again = both.rewrapped(wrapped, 1, 1)
    assert Keyring(MasterKeys.parse(new)).unwrapped(again, 1, 1).open(sealed, b"") == b"x"
    with pytest.raises(WrongKeyError, match="wrapped with the key"):
        MasterKeys.parse(old).unwrap(again, b"")


@pytest.mark.parametrize(
    "text",
    [
        *("", "# nothing", "abc", "\u00e9"),
        pytest.param(new_master_key() + "A", id="one letter more"),
        pytest.param(new_master_key()[:-8], id="eight letters less"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="key") as caught:
        MasterKeys.read(path)
    assert str(path) in caught.value.message
    assert "key-1:" not in caught.value.message
    with pytest.raises(ConfigurationError, match="cannot be read"):
        MasterKeys.read(tmp_path / "none")
