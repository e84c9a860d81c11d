"""Tokens of the user's own identity provider (JWT, RFC 7519): from text to `Principal`, or the reason why not.

`provider` calls it with keys that it has found. Nothing here opens a file or a socket, reads a clock or believes what a
token says about itself: which algorithms there are, and which key goes with which, is decided by the rules and the key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from jwt import InvalidTokenError, PyJWK, PyJWS, PyJWTError

from unbroken.errors import UnauthorizedError
from unbroken.identity import Principal

__all__ = [
    "ALGORITHMS",
    "DEFAULT_ALGORITHMS",
    "DEFAULT_TYPES",
    "JwtHead",
    "JwtRules",
    "VerificationKey",
    "head_of",
    "verify",
]

ALGORITHMS: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    **dict.fromkeys(("HS256", "HS384", "HS512"), ("oct", None)),
}
"""Every algorithm that can be allowed, with the only kind of key and curve that goes with it. `none` is none of them."""
DEFAULT_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
DEFAULT_TYPES: Final = ("at+jwt", "JWT")
RESERVED: Final = frozenset({"local", "anonymous"})
"""Subjects that no provider can speak of: what they own belongs to whoever runs the server."""
IDENTITY_BYTES_MAX: Final = 255
SECONDS_MAX: Final = 2**43
"""The farthest time that is one; a comparison takes every number, also one that no float can hold and none at all (NaN)."""
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_jws: Final = PyJWS()


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """What a token must be. `types` are values of `typ` in lower case, without `application/`."""

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str] = frozenset(DEFAULT_ALGORITHMS)
    types: frozenset[str] = frozenset(name.lower() for name in DEFAULT_TYPES)
    subject_claim: str = "sub"
    tenant_claim: str | None = None
    leeway_ms: int = 5_000
    bytes_max: int = 8_192


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key of the provider, once for each algorithm that it may be used with."""

    kid: str | None
    uses: dict[str, PyJWK] = field(repr=False)


@dataclass(frozen=True, slots=True)
class JwtHead:
    """What a token says about how it was signed; not to be believed, only to look for a key."""

    algorithm: str
    kid: str | None


def head_of(token: str, rules: JwtRules) -> JwtHead:
    """The head of `token`, if it is one that the rules allow at all; `UnauthorizedError` else."""
    if len(token) > rules.bytes_max or not _COMPACT.fullmatch(token):
        raise UnauthorizedError("the token is not valid")
    try:
        head = _object(_jws.decode_complete(token, options={"verify_signature": False})["header"])
    except (PyJWTError, ValueError, RecursionError):
        raise UnauthorizedError("the token is not valid") from None
    algorithm, kid, kind = head.get("alg"), head.get("kid"), head.get("typ")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms or algorithm not in ALGORITHMS:
        raise UnauthorizedError("the token is not valid")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in rules.types:
        raise UnauthorizedError("the token is of another kind")
    if "crit" in head or "b64" in head or not (kid is None or isinstance(kid, str)):
        raise UnauthorizedError("the token is not valid")
    return JwtHead(algorithm, kid)


def verify(token: str, rules: JwtRules, keys: Sequence[VerificationKey], now_ms: int) -> Principal:
    """Who `token` speaks of; `UnauthorizedError` unless one of `keys` has signed it and everything in it is right now.

    `keys` are those that the head asks for. Only the holder of a token with a good signature is told what is wrong with it.
    """
    head = head_of(token, rules)
    claims = _claims(token, head, keys)
    _check_audience(claims, rules)
    expires_ms = _check_times(claims, rules, now_ms)
    subject = _identity(claims, rules.subject_claim)
    tenant = "local" if rules.tenant_claim is None else _identity(claims, rules.tenant_claim)
    if subject in RESERVED:
        raise UnauthorizedError(f"the token's {rules.subject_claim} is reserved")
    return Principal(
        tenant,
        subject,
        credential=f"jwt:{_token_id(token, claims)}",
        expires_ms=expires_ms,
        issued_ms=_milliseconds(claims, "iat"),
    )


def _claims(token: str, head: JwtHead, keys: Sequence[VerificationKey]) -> dict[str, object]:
    for known in keys:
        key = known.uses.get(head.algorithm)
        if key is None or (head.kid is not None and known.kid != head.kid):
            continue
        try:
            payload = _jws.decode_complete(token, key, algorithms=[head.algorithm])["payload"]
        except InvalidTokenError:
            continue
        try:
            return _object(json.loads(payload, object_pairs_hook=_once, parse_constant=_refuse))
        except (ValueError, RecursionError):
            break
    raise UnauthorizedError("the token is not valid")


def _check_audience(claims: dict[str, object], rules: JwtRules) -> None:
    if claims.get("iss") != rules.issuer:
        raise UnauthorizedError("the token is of another issuer")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(name, str) and name in rules.audiences for name in named):
        raise UnauthorizedError("the token is for another audience")


def _check_times(claims: dict[str, object], rules: JwtRules, now_ms: int) -> int:
    """Until when the token is taken."""
    expires = _milliseconds(claims, "exp")
    if expires is None:
        raise UnauthorizedError("the token has no end (exp)")
    until = expires + rules.leeway_ms
    if until <= now_ms:
        raise UnauthorizedError("the token has expired")
    for name in ("nbf", "iat"):
        begins = _milliseconds(claims, name)
        if begins is not None and begins - rules.leeway_ms > now_ms:
            raise UnauthorizedError("the token is not valid yet")
    return until


def _milliseconds(claims: dict[str, object], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -SECONDS_MAX <= value <= SECONDS_MAX:
        raise UnauthorizedError(f"the token's {name} is no time")
    return int(value * 1000)


def _identity(claims: dict[str, object], name: str) -> str:
    """A claim that names whose things are meant: exactly as it is, or not at all."""
    value = claims.get(name)
    fits = isinstance(value, str) and value == value.strip() and not _UNFIT.search(value)
    if not isinstance(value, str) or not fits or not 1 <= len(value.encode()) <= IDENTITY_BYTES_MAX:
        raise UnauthorizedError(f"the token's {name} cannot be used")
    return value


def _token_id(token: str, claims: dict[str, object]) -> str:
    """What a token can be revoked by.

    Without a `jti` it is made of the signed part: the signature of some algorithms can be changed and stays good.
    """
    jti = claims.get("jti")
    if isinstance(jti, str) and 1 <= len(jti) <= 128 and not _UNFIT.search(jti):
        return jti
    return "sha256-" + hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()[:40]


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a peer's value, not a caller's type
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object in which each name is there once: readers disagree about which of two counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse(constant: str) -> object:
    raise ValueError(constant)
