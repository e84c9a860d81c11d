"""What an operator can set: one table, read from flags, `UNBROKEN_*` variables and a TOML file, in that order.

Built once at the edge (`serve`, the embedding object) and then frozen. The client library never imports it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from unbroken.limits import DEFAULT_LIMITS, MIB, Limits

__all__ = ["Settings", "is_loopback"]


QUOTAS: Final = frozenset(
    field.name
    for field in fields(Limits)
    if field.name.startswith(("owner_", "tenant_")) and field.name.endswith("_max")
)


class Settings(BaseSettings):
    """The settings of one server. Unknown names are errors."""

    model_config = SettingsConfigDict(env_prefix="UNBROKEN_", extra="forbid", frozen=True, secrets_dir=None)

    host: str = Field(
        "127.0.0.1", description="The address to listen on. Off loopback credentials are needed, and TLS or a proxy."
    )
    port: int = Field(4437, ge=0, le=65535, description="The port to listen on; 0 lets the system choose.")
    store: str = Field("sqlite:///unbroken.db", description="Where messages are kept: sqlite:///FILE or memory:.")
    durability: Literal["disk", "process"] = Field(
        "disk", description="What an acknowledged append survives: disk (power loss too) or process (a crash)."
    )
    ballast: int = Field(
        DEFAULT_LIMITS.store_ballast_bytes // MIB,
        ge=0,
        le=65_536,
        description="Mebibytes beside the database that are held in reserve for the day when the disk is full; 0 for none.",
    )
    long_poll_timeout: float = Field(
        DEFAULT_LIMITS.long_poll_seconds, gt=0, le=300, description="Seconds that a long poll waits for news."
    )
    heartbeat: float = Field(
        DEFAULT_LIMITS.heartbeat_seconds, gt=0, le=300, description="Seconds between heartbeats on live connections."
    )
    lease: float = Field(
        DEFAULT_LIMITS.lease_seconds, ge=1, le=3600, description="Seconds a producer's lease lasts by default."
    )
    token: SecretStr | None = Field(None, description="The bearer token that every request must carry, if any.")
    token_file: Path | None = Field(None, description="A file that holds the token.")
    allow_origin: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins besides the server's own that browsers may call from, separated by commas."
    )
    allow_host: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Host names besides the server's own that requests may name, separated by commas."
    )
    quota: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="What one owner or tenant may take, as NAME=NUMBER, separated by commas; 0 is no bound. "
        "Names and defaults: limits.md, `owner_…_max` and `tenant_…_max` without their `_max`.",
    )
    anonymous: bool = Field(
        default=False, description="Let in whoever has no credential, as the principal anonymous, to things of its own."
    )
    jwt_issuer: str | None = Field(
        None, description="The issuer (iss) of the tokens that your identity provider signs."
    )
    jwt_audience: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="What such a token must be for (aud), one of these, separated by commas."
    )
    jwt_keys: str | None = Field(
        None, description="Its public keys (JWKS): an https address, or a file. Read again when they change."
    )
    jwt_algorithms: Annotated[tuple[str, ...], NoDecode] = Field(
        ("RS256", "PS256", "ES256", "EdDSA"), description="How tokens may be signed, separated by commas."
    )
    jwt_types: Annotated[tuple[str, ...], NoDecode] = Field(
        ("at+jwt", "JWT"), description="The kinds (typ) of tokens that are taken, separated by commas."
    )
    jwt_subject_claim: str = Field("sub", min_length=1, description="The claim that says who the user is.")
    jwt_tenant_claim: str | None = Field(
        None, min_length=1, description="The claim that says which tenant the user belongs to; else all belong to one."
    )
    tls_cert: Path | None = Field(
        None, description="A file with the certificate (chain) that the server shows; then it speaks TLS."
    )
    tls_key: Path | None = Field(
        None, description="A file with its private key, without a passphrase; else in --tls-cert."
    )
    behind_proxy: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Addresses or networks of the proxies in front, whose X-Forwarded-* headers count, by commas."
    )
    tasks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules whose tasks can be run, as package.module or package.module:name, separated by commas."
    )
    programs: Path | None = Field(None, description="A JSON file with the programs that can be run by their names.")
    mcp_config: Path | None = Field(None, description="A JSON file with the MCP servers whose tools can be called.")
    worker: bool = Field(
        default=True, description="Whether this server executes runs itself; else `unbroken worker` does."
    )
    encryption_key: SecretStr | None = Field(
        None, description="The key with which what is stored is encrypted, as `unbroken encryption-key` makes it."
    )
    encryption_key_file: Path | None = Field(
        None, description="A file that holds it; older keys may be below it, for what they have encrypted."
    )
    redact: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="What is taken out before anything is stored: secrets (what looks like a credential), pairs (values of "
        "names like password), or a TOML file with literals and patterns; separated by commas.",
    )
    audit: Path | None = Field(
        None, description="A file to whose end the audit log is written, as lines of JSON, besides the log."
    )
    checkpoints: Path | None = Field(
        None, description="A directory, best of another machine's, to which signed checkpoints of streams are written."
    )
    checkpoint_key: Path | None = Field(
        None, description="The file with the key that signs them, as `unbroken keygen` has made it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What to log.")
    log_format: Literal["text", "json"] = Field("text", description="How to log, on standard error.")

    @field_validator(
        *(
            "allow_origin",
            "allow_host",
            "tasks",
            "redact",
            "quota",
            "jwt_audience",
            "jwt_algorithms",
            "jwt_types",
            "behind_proxy",
        ),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known_quotas(self) -> Self:
        self._quotas()
        return self

    @model_validator(mode="after")
    def _safe_by_default(self) -> Self:
        if self.exposed and self.secret is None and self.jwt_issuer is None and not self.anonymous:
            raise ValueError(
                f"others can reach this server ({self._because}): set a token (UNBROKEN_TOKEN or --token-file) or an "
                "identity provider (--jwt-issuer), say --anonymous, or listen on 127.0.0.1 for this machine alone"
            )
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("a key (--tls-key) is nothing without its certificate (--tls-cert)")
        if not is_loopback(self.host) and self.tls_cert is None and not self.behind_proxy:
            raise ValueError(
                f"what goes over the network to {self.host} can be read and changed on its way: give a certificate "
                "(--tls-cert, --tls-key), name the proxy that has one (--behind-proxy), or listen on 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if (self.checkpoints is None) != (self.checkpoint_key is None):
            raise ValueError("checkpoints want both --checkpoints and --checkpoint-key")
        return self

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = {"jwt_issuer": self.jwt_issuer, "jwt_audience": self.jwt_audience, "jwt_keys": self.jwt_keys}
        missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if not value]
        others = self.model_fields_set & {"jwt_algorithms", "jwt_types", "jwt_subject_claim", "jwt_tenant_claim"}
        if missing and (len(missing) < len(given) or others):
            raise ValueError(f"an identity provider is not complete without {', '.join(missing)}")
        return self

    @property
    def exposed(self) -> bool:
        """Whether others than this machine are meant to reach the server."""
        return self._because != ""

    @property
    def _because(self) -> str:
        """What says that others can reach the server."""
        if not is_loopback(self.host):
            return f"it listens on {self.host}"
        if self.behind_proxy:
            return "--behind-proxy"
        names = (host.rpartition(":")[0] or host for host in self.allow_host)
        return "" if all(map(is_loopback, names)) else "--allow-host"

    @property
    def secret(self) -> str | None:
        """The token, from wherever it was given."""
        if self.token is not None:
            return self.token.get_secret_value()
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        return None

    def _quotas(self) -> dict[str, int]:
        """The limits of owners and tenants that were set; `ValueError` names one that there is not."""
        found: dict[str, int] = {}
        for text in self.quota:
            name, _, value = text.partition("=")
            if f"{name}_max" not in QUOTAS or not (value.isascii() and value.isdecimal()):
                names = ", ".join(sorted(known.removesuffix("_max") for known in QUOTAS))
                raise ValueError(f"a quota is NAME=NUMBER, not {text!r}; the names: {names}")
            found[f"{name}_max"] = int(value)
        return found

    @property
    def limits(self) -> Limits:
        """The limits with what was set."""
        seconds = self.heartbeat
        return Limits(
            **self._quotas(),
            long_poll_seconds=self.long_poll_timeout,
            heartbeat_seconds=seconds,
            silence_seconds_max=seconds * 8 / 3,
            lease_seconds=self.lease,
            store_ballast_bytes=self.ballast * MIB,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
