"""The rules of who may come in, as the settings say: the shared token, the identity provider, hosts and origins.

`run` calls it once. It reads the provider's keys when they are in a file, so that a mistake ends the start.
"""

from __future__ import annotations

import logging
import os
import ssl
from stat import S_IROTH
from typing import TYPE_CHECKING

from unbroken.auth.access import Access
from unbroken.auth.forwarded import Proxies
from unbroken.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from unbroken.auth.provider import IdentityProvider
    from unbroken.limits import Limits
    from unbroken.settings import Settings

__all__ = ["build_access", "check_certificate", "tell_if_others_may_read"]

logger = logging.getLogger(__name__)


def build_access(settings: Settings) -> Access:
    """The rules that `settings` make. `ConfigurationError` names the setting that is wrong."""
    return Access(
        token=settings.secret,
        provider=None if settings.jwt_issuer is None else _provider(settings, settings.limits),
        anonymous=settings.anonymous,
        exposed=settings.exposed,
        proxies=Proxies.parse(settings.behind_proxy, encrypted=settings.tls_cert is not None)
        if settings.behind_proxy
        else None,
        allow_origins=frozenset(settings.allow_origin),
        allow_hosts=frozenset(settings.allow_host) | {settings.host},
    )


def check_certificate(certificate: Path | None, key: Path | None, *, setting: str = "tls_cert") -> None:
    """`ConfigurationError` when TLS is wanted and its certificate and key (else in the same file) cannot be used."""
    if certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl's errors are too; with no password, an encrypted key is one instead of a question
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"the certificate or its key cannot be used: {reason}", setting=setting) from None


def tell_if_others_may_read(*secrets: Path | None) -> None:
    """Warn in the log of each file with a secret that every user of this machine may read; it is used all the same.

    Not refused: where secrets are mounted into a container that is how they come, and nobody else is there.
    """
    for path in secrets:
        if path is not None and os.name == "posix" and path.stat().st_mode & S_IROTH:
            logger.warning("every user of this machine may read %s; do `chmod o= %s`", path, path)


def _provider(settings: Settings, limits: Limits) -> IdentityProvider:
    from unbroken.auth.jwks import FileSource, KeyRing, key_source  # noqa: PLC0415 - costly, and only for those who have one
    from unbroken.auth.jwt import JwtRules  # noqa: PLC0415 - as above
    from unbroken.auth.provider import IdentityProvider, check_algorithms  # noqa: PLC0415 - as above

    assert settings.jwt_issuer is not None, "checked by the settings"
    assert settings.jwt_keys is not None, "checked by the settings"
    source = key_source(settings.jwt_keys, limits)
    algorithms = check_algorithms(settings.jwt_algorithms, remote=source.remote)
    rules = JwtRules(
        issuer=settings.jwt_issuer,
        audiences=frozenset(settings.jwt_audience),
        algorithms=algorithms,
        types=frozenset(name.lower().removeprefix("application/") for name in settings.jwt_types),
        subject_claim=settings.jwt_subject_claim,
        tenant_claim=settings.jwt_tenant_claim,
        leeway_ms=int(limits.jwt_leeway_seconds * 1000),
        bytes_max=limits.jwt_bytes_max,
    )
    keys = KeyRing(source, algorithms, limits)
    if isinstance(source, FileSource):
        try:
            keys.take(source.read())
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the keys in {settings.jwt_keys} cannot be used: {error}", setting="jwt_keys"
            ) from None
    return IdentityProvider(rules, keys)
