"""A token of the identity provider is taken when everything about it is right, and for no other reason."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.idp import AUDIENCE, ISSUER, Signer, encode, shared_signer, signer
from unbroken.auth.jwks import read_keys
from unbroken.auth.jwt import JwtRules, head_of, verify
from unbroken.errors import UnauthorizedError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS

NOW_MS = 1_764_000_000_000
NOW = NOW_MS // 1000
RULES = JwtRules(
    issuer=ISSUER, audiences=frozenset({AUDIENCE, "other"}), algorithms=frozenset({"RS256", "ES256", "EdDSA"})
)
GOOD: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 60, "jti": "one"}
SECRET = b"obviously-a-secret-of-a-test-only"


def taken(token: str, rules: JwtRules = RULES, *signers: Signer, now_ms: int = NOW_MS) -> Principal:
    document = json.dumps({"keys": [one.jwk for one in signers or (signer(), signer("rsa", "RS256"))]}).encode()
    return verify(token, rules, read_keys(document, rules.algorithms, DEFAULT_LIMITS, secrets=True), now_ms)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_a_good_token_says_who_is_asking_and_for_how_long(algorithm: str) -> None:
    key = signer(f"k-{algorithm}", algorithm)
    found = taken(key.token(GOOD), RULES, key)
    assert found == Principal("local", "alice", credential="jwt:one", expires_ms=(NOW + 60) * 1000 + 5_000)


def test_the_claims_of_subject_and_tenant_are_those_of_the_rules() -> None:
    rules = replace(RULES, subject_claim="email", tenant_claim="org")
    found = taken(signer().token({**GOOD, "email": "a@b.example", "org": "acme"}), rules)
    assert (found.tenant, found.subject) == ("acme", "a@b.example")
    with pytest.raises(UnauthorizedError):
        taken(signer().token(GOOD), rules)


@pytest.mark.parametrize(
    "change",
    [
        {"aud": ["else", "other"]},
        {"exp": NOW + 60.5},
        {"exp": NOW - 4},
        {"exp": 2**43},
        {"nbf": NOW + 4, "iat": NOW + 4},
        {"nbf": None},
        {"sub": "auth0|6f\u00e4 b"},
        {"jti": None},
    ],
)
def test_what_is_allowed_is_taken(change: dict[str, Any]) -> None:
    assert taken(signer().token({**GOOD, **change})).subject == change.get("sub", "alice")


HUGE = 10**400
"""A number of JSON that no float can hold."""
WRONG_CLAIMS: list[dict[str, Any]] = [
    {"iss": "https://login.example/"},
    {"iss": [ISSUER]},
    {"iss": None},
    {"aud": "elsewhere"},
    {"aud": []},
    {"aud": None},
    {"aud": [[AUDIENCE]]},
    {"aud": {AUDIENCE: 1}},
    {"exp": NOW - 5},
    {"exp": None},
    {"exp": str(NOW + 60)},
    {"exp": True},
    {"exp": 2**43 + 1},
    {"exp": 1e300},
    {"exp": HUGE},
    {"exp": -HUGE},
    {"nbf": NOW + 6},
    {"nbf": "soon"},
    {"nbf": HUGE},
    {"nbf": -HUGE},
    {"iat": NOW + 6},
    {"iat": HUGE},
    {"iat": -HUGE},
    {"sub": None},
    {"sub": ""},
    {"sub": " alice"},
    {"sub": "ali\nce"},
    {"sub": 7},
    {"sub": "a" * 256},
    {"sub": "local"},
    {"sub": "anonymous"},
]


@pytest.mark.scenario("SEC-001")
@pytest.mark.parametrize("change", WRONG_CLAIMS, ids=lambda change: repr(change)[:60])
def test_any_wrong_claim_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnauthorizedError):
        taken(signer().token({**GOOD, **change}))


def _swapped(token: str, part: int, value: str) -> str:
    parts = token.split(".")
    parts[part] = value
    return ".".join(parts)


HEAD = {"alg": "ES256", "kid": "first", "typ": "at+jwt"}
FORGED: dict[str, Callable[[], str]] = {
    "no signature": lambda: signer().token(GOOD).rpartition(".")[0] + ".",
    "signature cut": lambda: signer().token(GOOD)[:-2],
    "two parts": lambda: signer().token(GOOD).rpartition(".")[0],
    "four parts": lambda: signer().token(GOOD) + ".x",
    "blank": lambda: "",
    "padding": lambda: signer().token(GOOD) + "=",
    "line end": lambda: signer().token(GOOD) + "\n",
    "not base64": lambda: signer().token(GOOD).replace(".", ".ä", 1),
    "another key": lambda: signer("second").token(GOOD, kid="first"),
    "unknown kid": lambda: signer().token(GOOD, kid="second"),
    "kid is no text": lambda: signer().token(GOOD, kid=["first"]),
    "claims of another token": lambda: _swapped(signer().token(GOOD), 1, encode({**GOOD, "sub": "bob"})),
    "none": lambda: f"{encode({**HEAD, 'alg': 'none'})}.{encode(GOOD)}.",
    "none, with something": lambda: f"{encode({**HEAD, 'alg': 'none'})}.{encode(GOOD)}.{encode(b'x')}",
    "None": lambda: _swapped(signer().token(GOOD), 0, encode({**HEAD, "alg": "None"})),
    "no algorithm": lambda: signer().sign({"kid": "first", "typ": "at+jwt"}, GOOD),
    "algorithm is no text": lambda: signer().sign({**HEAD, "alg": ["ES256"]}, GOOD),
    "algorithm not allowed": lambda: signer().sign({**HEAD, "alg": "ES384"}, GOOD),
    "algorithm of another key": lambda: signer("rsa", "RS256").sign({**HEAD, "alg": "RS256"}, GOOD),
    "HMAC with the public key": lambda: _hmac(signer("rsa", "RS256")),
    "no typ": lambda: signer().sign({"alg": "ES256", "kid": "first"}, GOOD),
    "an identity token": lambda: signer().token(GOOD, typ="id+jwt"),
    "critical extension": lambda: signer().token(GOOD, crit=["exp"], exp=1),
    "critical extension that the library knows": lambda: signer().token(GOOD, crit=["b64"], b64=True),
    "unencoded payload": lambda: signer().token(GOOD, b64=False),
    "claims twice": lambda: signer().sign(HEAD, json.dumps(GOOD)[:-1].encode() + b',"sub":"bob"}'),
    "claims not finite": lambda: signer().sign(HEAD, json.dumps(GOOD)[:-1].encode() + b',"x":NaN}'),
    "claims no object": lambda: signer().sign(HEAD, b"[1]"),
    "claims no JSON": lambda: signer().sign(HEAD, b"{"),
    "times not finite": lambda: signer().sign(HEAD, json.dumps(GOOD)[:-1].encode() + b',"nbf":1e999}'),
    "claims nested": lambda: signer().sign(HEAD, b"[" * 4_000),
    "claims not UTF-8": lambda: signer().sign(HEAD, b'{"sub":"\xff"}'),
    "head no object": lambda: _swapped(signer().token(GOOD), 0, encode([1])),
    "head no JSON": lambda: _swapped(signer().token(GOOD), 0, encode(b"{")),
    "oversized": lambda: signer().token({**GOOD, "x": "y" * 8_192}),
}


def _hmac(key: Signer) -> str:
    signed = f"{encode({'alg': 'HS256', 'kid': key.kid, 'typ': 'at+jwt'})}.{encode(GOOD)}"
    return f"{signed}.{encode(hmac.digest(key.pem, signed.encode(), 'sha256'))}"


@pytest.mark.scenario("SEC-001")
@pytest.mark.parametrize("how", FORGED)
def test_any_forged_token_is_refused(how: str) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        taken(FORGED[how]())
    assert "alice" not in str(caught.value)


def test_a_public_key_never_verifies_by_an_algorithm_of_shared_keys_even_when_that_is_allowed() -> None:
    rules = replace(RULES, algorithms=frozenset({"RS256", "HS256"}))
    with pytest.raises(UnauthorizedError):
        taken(_hmac(signer("rsa", "RS256")), rules)


def test_a_shared_key_works_where_it_is_meant() -> None:
    rules = replace(RULES, algorithms=frozenset({"HS256"}))
    key = shared_signer(SECRET)
    assert taken(key.token(GOOD), rules, key).subject == "alice"
    with pytest.raises(UnauthorizedError):
        taken(shared_signer(SECRET + b"!").token(GOOD), rules, key)


def test_a_token_without_jti_is_named_by_what_is_signed_and_not_by_its_signature() -> None:
    claims = {**GOOD, "jti": None}
    first, again = signer().token(claims), signer().token(claims)
    assert first != again, "ECDSA signs differently each time"
    assert taken(first).credential == taken(again).credential
    assert taken(first).credential != taken(signer().token({**claims, "sub": "bob"})).credential


def test_types_are_compared_without_their_prefix_and_case() -> None:
    for kind in ("JWT", "jwt", "application/at+jwt", "AT+JWT"):
        assert head_of(signer().token(GOOD, typ=kind), RULES).kid == "first"
