"""What the settings say about who may come in is complete and safe, or the server does not start."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make_certificate
from tests.support.idp import AUDIENCE, ISSUER, shared_signer, signer
from unbroken.cli.serve import settings_of
from unbroken.errors import ConfigurationError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server.entrance import build_access, check_certificate, tell_if_others_may_read

WHOLE = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": "https://login.example/keys"}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        *[
            ({name: value for name, value in WHOLE.items() if name != left}, f"--{left.replace('_', '-')}")
            for left in WHOLE
        ],
        ({"jwt_tenant_claim": "org"}, "--jwt-issuer, --jwt-audience, --jwt-keys"),
        ({"jwt_algorithms": "ES256"}, "--jwt-issuer"),
        ({"host": "0.0.0.0"}, "--token-file"),
        ({"host": "0.0.0.0", "anonymous": True}, "--tls-cert"),
        ({"host": "0.0.0.0", "anonymous": True}, "--behind-proxy"),
        ({"behind_proxy": "127.0.0.1"}, "--token-file"),
        ({"allow_host": "app.example"}, "--anonymous"),
        ({"allow_host": "*"}, "--jwt-issuer"),
        ({"tls_key": "key.pem"}, "--tls-cert"),
        ({"quota": "owner_wishes=3"}, "owner_connections, "),
        ({"quota": "owner_connections=many"}, "NAME=NUMBER"),
    ],
)
def test_settings_that_are_not_whole_say_what_is_missing(given: dict[str, object], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        settings_of(given)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"jwt_algorithms": "none"}, "not one of"),
        ({"jwt_algorithms": "RS256,rs512"}, "not one of"),
        ({"jwt_algorithms": "HS256"}, "shared key"),
        ({"jwt_algorithms": ","}, "at least one"),
        ({"jwt_keys": "http://login.example/keys"}, "https"),
        ({"jwt_keys": "no-such-file.json"}, "cannot be used"),
        ({"behind_proxy": "everybody"}, "network"),
    ],
)
def test_what_cannot_be_safe_is_refused(change: dict[str, object], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        build_access(settings_of({**WHOLE, **change}))


def test_a_certificate_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="certificate"):
        check_certificate(tmp_path / "none.pem", None)
    check_certificate(make_certificate(tmp_path / "server.pem"), None)
    check_certificate(None, None)


@pytest.mark.parametrize("algorithm", ["ES256", "HS256"])
def test_a_file_with_keys_makes_a_provider(tmp_path: Path, algorithm: str) -> None:
    key = shared_signer(b"k" * 32) if algorithm == "HS256" else signer()
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [key.jwk]}))
    access = build_access(settings_of({**WHOLE, "jwt_keys": str(path), "jwt_algorithms": algorithm}))
    assert access.provider is not None
    assert not access.unguarded


@pytest.mark.parametrize(
    ("given", "unguarded"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"anonymous": True}, False),
        ({"host": "0.0.0.0", "anonymous": True, "behind_proxy": "10.0.0.0/8"}, False),
        ({"host": "0.0.0.0", "anonymous": True, "tls_cert": "server.pem"}, False),
        (WHOLE, False),
    ],
)
def test_only_a_server_for_this_machine_alone_lets_everybody_own_everything(
    given: dict[str, Any], unguarded: bool
) -> None:
    assert build_access(settings_of(given)).unguarded is unguarded


def test_quotas_are_set_by_name_and_the_others_stay_as_they_are() -> None:
    limits = settings_of({"quota": "owner_connections=7,tenant_stored_bytes=0"}).limits
    assert (limits.owner_connections_max, limits.tenant_stored_bytes_max) == (7, 0)
    assert limits.owner_subscriptions_max == DEFAULT_LIMITS.owner_subscriptions_max


@pytest.mark.skipif(sys.platform == "win32", reason="not run: files have no such mode")
@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_secret_that_every_user_of_the_machine_may_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, told: bool
) -> None:
    key = tmp_path / "key"
    key.write_text("not told")
    key.chmod(mode)
    tell_if_others_may_read(None, key)
    assert [record.getMessage() for record in caplog.records] == told * [
        f"every user of this machine may read {key}; do `chmod o= {key}`"
    ]
