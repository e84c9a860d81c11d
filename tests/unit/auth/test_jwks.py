"""The provider's keys: what is taken of its document, and how it is asked again without being overrun."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.idp import Idp, served, shared_signer, signer
from unbroken.auth.jwks import FileSource, KeyRing, UrlSource, key_source, read_keys
from unbroken.errors import ConfigurationError, ProviderUnavailableError, UnauthorizedError
from unbroken.limits import DEFAULT_LIMITS, Limits

pytestmark = pytest.mark.anyio

ALL = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
LIMITS = replace(DEFAULT_LIMITS, jwks_cooldown_seconds=0.0)
CALM = replace(DEFAULT_LIMITS, jwks_cooldown_seconds=3_600.0, jwks_seconds_max=2.0)


def document(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


def read(*entries: dict[str, Any], algorithms: frozenset[str] = ALL, secrets: bool = False) -> list[dict[str, object]]:
    return [dict(key.uses) for key in read_keys(document(*entries), algorithms, DEFAULT_LIMITS, secrets=secrets)]


RSA = signer("rsa", "RS256").jwk
EC = signer().jwk


def test_each_key_is_used_with_its_own_algorithms_only() -> None:
    free = {name: value for name, value in RSA.items() if name != "alg"}
    assert [set(uses) for uses in read(RSA, free, EC, signer("ed", "EdDSA").jwk)] == [
        {"RS256"},
        {"RS256", "PS256"},
        {"ES256"},
        {"EdDSA"},
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {**EC, "use": "enc"},
        {**EC, "key_ops": ["sign"]},
        {**EC, "crv": "P-384"},
        {**EC, "alg": "ES384"},
        {**EC, "kty": "RSA"},
        {**EC, "x": "AAAA"},
        {**EC, "x": 5},
        {"kty": "unheard-of"},
        {},
        shared_signer(b"s" * 32).jwk,
        {**RSA, "n": "sZ_3"},  # far too short
    ],
)
def test_a_key_that_cannot_be_used_is_left_out(entry: dict[str, Any]) -> None:
    other = signer("ed", "EdDSA").jwk
    assert [set(uses) for uses in read(entry, other)] == [{"EdDSA"}]
    with pytest.raises(ValueError, match="no key"):
        read(entry)


def test_a_private_key_in_the_document_is_used_as_a_public_one() -> None:
    assert len(read({**EC, "d": EC["x"]})) == 1


def test_shared_keys_are_taken_from_a_file_only_and_must_be_long_enough() -> None:
    hmac = frozenset({"HS256"})
    assert len(read(shared_signer(b"s" * 32).jwk, algorithms=hmac, secrets=True)) == 1
    for key, secrets in ((b"s" * 31, True), (b"s" * 32, False)):
        with pytest.raises(ValueError, match="no key"):
            read(shared_signer(key).jwk, algorithms=hmac, secrets=secrets)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys":{}}', b"[" * 100_000, document(*[EC] * 101)])
def test_what_is_no_document_is_a_mistake(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_keys(text, ALL, DEFAULT_LIMITS, secrets=False)


@pytest.mark.parametrize(
    "place",
    [
        "http://login.example/keys",
        "ftp://login.example/keys",
        "https://user:secret@login.example/keys",
        "https:///keys",
        "file:///etc/keys",
    ],
)
def test_keys_never_come_over_an_open_network(place: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        key_source(place, DEFAULT_LIMITS)
    assert "secret" not in str(caught.value)


def test_the_places_that_keys_may_come_from() -> None:
    assert isinstance(key_source("keys.json", DEFAULT_LIMITS), FileSource)
    for url in ("https://login.example/keys", "http://127.0.0.1:1/keys", "http://localhost/keys", "http://[::1]/keys"):
        assert isinstance(key_source(url, DEFAULT_LIMITS), UrlSource)


@asynccontextmanager
async def running(idp: Idp, limits: Limits = LIMITS) -> AsyncIterator[KeyRing]:
    ring = KeyRing(key_source(idp.url, limits), ALL, limits)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(ring.run())
        yield ring
        task.cancel()


async def test_a_new_key_of_the_provider_is_found_and_one_taken_out_is_gone() -> None:
    async with served(signer()) as idp, running(idp) as ring:
        assert [key.kid for key in await ring.find("first", "ES256")] == ["first"]
        idp.signers = [signer("second")]
        assert [key.kid for key in await ring.find("second", "ES256")] == ["second"]
        with pytest.raises(UnauthorizedError):
            await ring.find("first", "ES256")


async def test_keys_are_read_again_after_a_while() -> None:
    async with served(signer()) as idp, running(idp, replace(LIMITS, jwks_refresh_seconds=0.01)) as ring:
        await ring.find("first", "ES256")
        idp.signers = [signer("second")]
        async with asyncio.timeout(20):
            while ring._fitting("first", "ES256"):
                await asyncio.sleep(0.01)


async def test_the_old_keys_stay_while_the_provider_is_away() -> None:
    async with served(signer()) as idp, running(idp) as ring:
        await ring.find("first", "ES256")
        idp.away = True
        with pytest.raises(ProviderUnavailableError):
            await ring.find("second", "ES256")
        assert len(await ring.find("first", "ES256")) == 1


async def test_without_keys_nobody_is_refused_for_good() -> None:
    async with served() as idp:
        idp.away = True
        async with running(idp) as ring:
            with pytest.raises(ProviderUnavailableError):
                await ring.find("first", "ES256")
            idp.away, idp.signers = False, [signer()]
            assert len(await ring.find("first", "ES256")) == 1


async def test_however_many_tokens_name_unknown_keys_the_provider_is_asked_once() -> None:
    async with served(signer()) as idp:
        idp.hold = asyncio.Event()
        async with running(idp, CALM) as ring, asyncio.TaskGroup() as tasks:
            askers = [tasks.create_task(_outcome(ring, f"k{number}")) for number in range(50)]
            async with asyncio.timeout(20):
                while not idp.asked:
                    await asyncio.sleep(0.005)
            idp.hold.set()
            assert {await asker for asker in askers} == {"unauthorized"}
            assert [await _outcome(ring, f"k{number}") for number in range(50)] == ["unauthorized"] * 50
        assert idp.asked == 1


async def _outcome(ring: KeyRing, kid: str) -> str:
    try:
        await ring.find(kid, "ES256")
    except (UnauthorizedError, ProviderUnavailableError) as error:
        return error.code
    return "found"


async def test_a_token_without_a_key_name_means_the_only_key_there_is() -> None:
    async with served(signer()) as idp, running(idp, CALM) as ring:
        assert len(await ring.find(None, "ES256")) == 1
    async with served(signer(), signer("second")) as idp, running(idp, CALM) as ring:
        assert await _outcome(ring, "first") == "found"
        with pytest.raises(UnauthorizedError):
            await ring.find(None, "ES256")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: ELSEWHERE\r\nConnection: close\r\n\r\n", b""),
        (b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"<html>"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", document(EC) + b" " * (256 * 1024)),
        (b"no HTTP at all\r\n\r\n", b""),
    ],
)
async def test_a_bad_answer_of_the_provider_is_no_answer(head: bytes, body: bytes | None) -> None:
    async with served(signer()) as idp, served(signer()) as elsewhere:
        idp.head, idp.body = head.replace(b"ELSEWHERE", elsewhere.url.encode()), body
        async with running(idp) as ring:
            assert await _outcome(ring, "first") == "provider_unavailable"


async def test_a_provider_that_does_not_answer_is_not_waited_for_long() -> None:
    async with served(signer()) as idp:
        idp.hold = asyncio.Event()
        async with running(idp, replace(LIMITS, jwks_seconds_max=0.05)) as ring, asyncio.timeout(20):
            assert await _outcome(ring, "first") == "provider_unavailable"


async def test_keys_in_a_file_are_read_again_for_a_key_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(document(EC))
    ring = KeyRing(key_source(str(path), LIMITS), ALL, LIMITS)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(ring.run())
        assert await _outcome(ring, "first") == "found"
        path.write_bytes(document(signer("second").jwk))
        assert await _outcome(ring, "second") == "found"
        task.cancel()
