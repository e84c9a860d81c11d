"""The user's own identity provider: a bearer token of it becomes a principal.

`Callers` asks it, the engine runs it. It puts the rules (`jwt`) and the keys (`jwks`) together, and is imported only where
a provider is configured.
"""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.auth.jwks import KeyRing
from unbroken.auth.jwt import ALGORITHMS, JwtRules, head_of, verify
from unbroken.clock import Clock
from unbroken.errors import ConfigurationError
from unbroken.identity import Principal

__all__ = ["IdentityProvider", "check_algorithms"]


def check_algorithms(named: Sequence[str], *, remote: bool) -> frozenset[str]:
    """The algorithms of these names; `ConfigurationError` for one that there is not, or that would share a secret.

    Keys that come from elsewhere (`remote`) are public: with one of them anybody could sign by an algorithm that signs and
    verifies with the same key.
    """
    for name in named:
        if name not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise ConfigurationError(f"{name[:20]} is not one of {known}", setting="jwt_algorithms")
        if remote and ALGORITHMS[name][0] == "oct":
            raise ConfigurationError(
                f"{name} needs a shared key, which comes from a file only", setting="jwt_algorithms"
            )
    if not named:
        raise ConfigurationError("name at least one algorithm", setting="jwt_algorithms")
    return frozenset(named)


class IdentityProvider:
    """Verifies tokens by `rules` with the keys of `keys`."""

    def __init__(self, rules: JwtRules, keys: KeyRing) -> None:
        self._rules = rules
        self._keys = keys

    async def principal(self, token: str, clock: Clock) -> Principal:
        """Who `token` speaks of. `UnauthorizedError` when it is not good, `ProviderUnavailableError` without keys."""
        head = head_of(token, self._rules)
        return verify(token, self._rules, await self._keys.find(head.kid, head.algorithm), clock.now_ms())

    async def run(self) -> None:
        """Keep the keys up to date, for ever."""
        await self._keys.run()
