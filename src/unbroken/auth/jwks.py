"""The keys of an identity provider (JWKS, RFC 7517): read, kept, and fetched again when it begins to use another.

`provider` asks it for the key of a token. What cannot be used is left out, what is secret in a document is dropped, and
keys that were good are kept while the provider is away. It never follows a redirect and never believes a token.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx2
from jwt import PyJWK, PyJWTError

from unbroken.auth.jwt import ALGORITHMS, VerificationKey
from unbroken.errors import ConfigurationError, ProviderUnavailableError, UnauthorizedError
from unbroken.limits import Limits
from unbroken.settings import is_loopback

__all__ = ["FileSource", "KeyRing", "KeySource", "key_source", "read_keys"]

logger = logging.getLogger(__name__)

PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
"""The members of a key that verification needs; all others are dropped, private ones among them."""
RSA_BITS_MIN: Final = 2048
SECRET_BYTES_MIN: Final = 32


class KeySource(Protocol):
    """Where a key document comes from."""

    @property
    def remote(self) -> bool:
        """Whether it comes over the network: then it may be away, and holds no secrets."""
        ...

    async def load(self) -> bytes:
        """The document; `OSError`, `ValueError` or an error of httpx2 when it cannot be had."""
        ...


class FileSource:
    """A file. It is read again now and then, and when a token names a key that is not in it."""

    remote = False

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits

    async def load(self) -> bytes:
        return await asyncio.to_thread(self.read)

    def read(self) -> bytes:
        with self._path.open("rb") as file:
            return _bounded(file.read(self._limits.jwks_bytes_max + 1), self._limits)


class UrlSource:
    """An address of the provider: one request, without redirects, bounded in time and size."""

    remote = True

    def __init__(self, url: str, limits: Limits) -> None:
        self._url = url
        self._limits = limits

    async def load(self) -> bytes:
        body = b""
        async with (
            asyncio.timeout(self._limits.jwks_seconds_max),
            httpx2.AsyncClient(follow_redirects=False) as client,
            client.stream("GET", self._url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != 200:
                raise ValueError(f"HTTP {response.status_code}")
            async for part in response.aiter_bytes():
                body = _bounded(body + part, self._limits)
        return body


def key_source(place: str, limits: Limits) -> FileSource | UrlSource:
    """The source that `place` names: an `https://` address (`http://` on this machine only) or a file.

    `ConfigurationError` for any other address.
    """
    if "://" not in place:
        return FileSource(Path(place), limits)
    parts = urlsplit(place)
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not secure or not parts.hostname or parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            "keys come from a file or from https://HOST/PATH (http only on this machine), without credentials in it",
            setting="jwt_keys",
        )
    return UrlSource(place, limits)


def read_keys(document: bytes, algorithms: frozenset[str], limits: Limits, *, secrets: bool) -> list[VerificationKey]:
    """The keys of a document that can be used with `algorithms`, shared ones only with `secrets`.

    `ValueError` when there is none.
    """
    try:
        given = json.loads(document)
    except RecursionError:
        raise ValueError("nested too deep") from None
    listed = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(listed, list) or len(listed) > limits.jwks_keys_max:
        raise ValueError("not a set of keys")
    found = [key for entry in listed if isinstance(entry, dict) and (key := _key(entry, algorithms, secrets=secrets))]
    if not found:
        raise ValueError(f"no key for {', '.join(sorted(algorithms))}")
    return found


class KeyRing:
    """The keys that are in force. `run` must be running; all requests share one fetch.

    A key that is not known is asked for at once, but no more often than every `jwks_cooldown_seconds`; everything is read
    again every `jwks_refresh_seconds`. What the provider has taken out is gone with the next good answer.
    """

    def __init__(self, source: KeySource, algorithms: frozenset[str], limits: Limits) -> None:
        self._source = source
        self._algorithms = algorithms
        self._limits = limits
        self._keys: list[VerificationKey] = []
        self._failed = True
        """Whether the last attempt brought nothing (or there was none yet)."""
        self._next_at = float("-inf")
        self._wanted = asyncio.Event()
        self._turn = asyncio.Event()

    def take(self, document: bytes) -> None:
        """Hold the keys of `document` from now on; `ValueError` when it has none."""
        self._keys = read_keys(document, self._algorithms, self._limits, secrets=not self._source.remote)
        self._failed = False

    async def find(self, kid: str | None, algorithm: str) -> Sequence[VerificationKey]:
        """The keys that may have signed.

        `UnauthorizedError` when the provider has no such key, `ProviderUnavailableError` when it cannot be asked.
        """
        found = self._fitting(kid, algorithm)
        if not found and asyncio.get_running_loop().time() >= self._next_at:
            turn = self._turn
            self._wanted.set()
            try:
                async with asyncio.timeout(2 * self._limits.jwks_seconds_max):
                    await turn.wait()
            except TimeoutError:
                raise ProviderUnavailableError("the keys of the identity provider cannot be had now") from None
            found = self._fitting(kid, algorithm)
        if found:
            return found
        if self._failed:
            raise ProviderUnavailableError("the keys of the identity provider cannot be had now")
        raise UnauthorizedError("the token is not valid")

    async def run(self) -> None:
        """Fetch the keys now, then whenever they are wanted or old, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._load()
            self._next_at = loop.time() + self._limits.jwks_cooldown_seconds
            self._wanted.clear()
            turn, self._turn = self._turn, asyncio.Event()
            turn.set()
            refresh = self._limits.jwks_cooldown_seconds if self._failed else self._limits.jwks_refresh_seconds
            try:
                async with asyncio.timeout(refresh):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _load(self) -> None:
        try:
            self.take(await self._source.load())
        except (OSError, ValueError, TimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            self._failed = True
            kept = len(self._keys)
            logger.warning("the identity provider's keys cannot be read (%s); %d are kept", _reason(error), kept)

    def _fitting(self, kid: str | None, algorithm: str) -> list[VerificationKey]:
        """The keys that a token names; one that names none means the only one there is."""
        fitting = [key for key in self._keys if algorithm in key.uses and (kid is None or key.kid == kid)]
        return fitting if kid is not None or len(fitting) == 1 else []


def _key(entry: dict[str, object], algorithms: frozenset[str], *, secrets: bool) -> VerificationKey | None:
    """One entry of a document; None for a key that cannot be used here."""
    kind, kid, operations = entry.get("kty"), entry.get("kid"), entry.get("key_ops", ["verify"])
    if not isinstance(kind, str) or kind not in PUBLIC or (kind == "oct" and not secrets):
        return None
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    public = {"kty": kind, **{name: entry[name] for name in PUBLIC[kind] if name in entry}}
    uses: dict[str, PyJWK] = {}
    for algorithm in algorithms:
        if ALGORITHMS[algorithm] != (kind, entry.get("crv")) or entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = PyJWK(public, algorithm)
        except (PyJWTError, ValueError, TypeError, KeyError):  # the last for one without what it is made of
            return None
        if _strong(key):
            uses[algorithm] = key
    return VerificationKey(kid if isinstance(kid, str) else None, uses) if uses else None


def _strong(key: PyJWK) -> bool:
    if isinstance(key.key, bytes):
        return len(key.key) >= max(SECRET_BYTES_MIN, int(key.algorithm_name[2:]) // 8)
    return getattr(key.key, "key_size", RSA_BITS_MIN) >= RSA_BITS_MIN or key.key_type != "RSA"


def _bounded(document: bytes, limits: Limits) -> bytes:
    if len(document) > limits.jwks_bytes_max:
        raise ValueError(f"more than {limits.jwks_bytes_max} bytes")
    return document


def _reason(error: Exception) -> str:
    """What went wrong, without what a peer has written."""
    return str(error) if type(error) is ValueError else type(error).__name__
