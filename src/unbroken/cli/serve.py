"""The verb serve: a server with its settings from flags, the environment and defaults, in that order.

The server itself is `unbroken.server.run`. Nothing is printed on stdout but the line that says that it is ready.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from unbroken.errors import ConfigurationError

if TYPE_CHECKING:
    from unbroken.settings import Settings

__all__ = ["DEFAULT_CONFIDENCE", "DEFAULT_LOGGING", "Access", "Confidence", "Logging", "Timing", "serve", "settings_of"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things take."""

    long_poll_timeout: Annotated[float | None, Parameter(help="Seconds that a long poll waits for news [25].")] = None
    heartbeat: Annotated[float | None, Parameter(help="Seconds between heartbeats on live connections [15].")] = None
    lease: Annotated[float | None, Parameter(help="Seconds that a producer's lease lasts by default [6].")] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may come in."""

    token_file: Annotated[
        Path | None, Parameter(help="A file with the bearer token that every request must carry; else UNBROKEN_TOKEN.")
    ] = None
    allow_origin: Annotated[
        tuple[str, ...], Parameter(negative="", help="An origin besides the server's own that browsers may call from.")
    ] = ()
    allow_host: Annotated[
        tuple[str, ...], Parameter(negative="", help="A host name besides the server's own that requests may name.")
    ] = ()
    anonymous: Annotated[
        bool | None,
        Parameter(negative="", help="Let in whoever has no credential, as `anonymous`, to things of its own [no]."),
    ] = None
    quota: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="What one owner or tenant may take: NAME=NUMBER, like owner_connections=50."),
    ] = ()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How others reach the server; off this machine one of these is needed."""

    tls_cert: Annotated[
        Path | None, Parameter(help="A file with the certificate (chain) to show; then it speaks TLS.")
    ] = None
    tls_key: Annotated[Path | None, Parameter(help="A file with its private key; else in --tls-cert.")] = None
    behind_proxy: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", help="An address or network of the proxies in front, whose X-Forwarded-* headers count."
        ),
    ] = ()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Your identity provider, whose tokens (JWT) are taken."""

    jwt_issuer: Annotated[str | None, Parameter(help="The issuer (iss) of its tokens.")] = None
    jwt_audience: Annotated[
        tuple[str, ...], Parameter(negative="", help="What a token must be for (aud); one of these.")
    ] = ()
    jwt_keys: Annotated[
        str | None, Parameter(help="Its public keys (JWKS): an https address, or a file. Read again when they change.")
    ] = None
    jwt_algorithms: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="How tokens may be signed [RS256, PS256, ES256, EdDSA]."),
    ] = ()
    jwt_types: Annotated[
        tuple[str, ...], Parameter(negative="", help="The kinds (typ) of tokens that are taken [at+jwt, JWT].")
    ] = ()
    jwt_subject_claim: Annotated[str | None, Parameter(help="The claim that says who the user is [sub].")] = None
    jwt_tenant_claim: Annotated[
        str | None, Parameter(help="The claim that says which tenant the user belongs to; else all belong to one.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """What goes to the log, which is standard error."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, Parameter(help="What to log [info].")] = (
        None
    )
    log_format: Annotated[Literal["text", "json"] | None, Parameter(help="How to log [text].")] = None
    audit: Annotated[
        Path | None, Parameter(help="A file to whose end the audit log is written too, as lines of JSON.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What can be run."""

    tasks: Annotated[
        tuple[str, ...], Parameter(negative="", help="A module with tasks: package.module, or package.module:name.")
    ] = ()
    programs: Annotated[Path | None, Parameter(help="A JSON file with the programs that can be run by name.")] = None
    mcp_config: Annotated[Path | None, Parameter(help="A JSON file with mcpServers, like .mcp.json.")] = None
    worker: Annotated[
        bool | None, Parameter(help="Execute runs in this process, rather than in `unbroken worker` [yes].")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What is not stored as it came."""

    encryption_key_file: Annotated[
        Path | None,
        Parameter(help="A file with the key with which what is stored is encrypted; else UNBROKEN_ENCRYPTION_KEY."),
    ] = None

    redact: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="Take out before storing: secrets (what looks like a credential), pairs (values of names like password), "
            "or a TOML file with literals and patterns.",
        ),
    ] = ()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What shows that nothing was changed."""

    checkpoints: Annotated[
        Path | None, Parameter(help="A directory outside the database to which signed checkpoints of streams go.")
    ] = None
    checkpoint_key: Annotated[
        Path | None, Parameter(help="The file with the key that signs them; see `unbroken keygen`.")
    ] = None


DEFAULT_WORK: Final = Work()
DEFAULT_CONFIDENCE: Final = Confidence()
DEFAULT_TIMING: Final = Timing()
DEFAULT_LOGGING: Final = Logging()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Who may come in, and what is kept from whom."""

    access: Access = Access()
    network: Network = Network()
    provider: Provider = Provider()
    confidence: Confidence = DEFAULT_CONFIDENCE
    evidence: Evidence = Evidence()


DEFAULT_SECURITY: Final = Security()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the server listens and where it keeps messages."""

    host: Annotated[str | None, Parameter(help="The address to listen on [127.0.0.1].")] = None
    port: Annotated[int | None, Parameter(help="The port; 0 lets the system choose [4437].")] = None
    store: Annotated[str | None, Parameter(help="sqlite:///FILE or memory: [sqlite:///unbroken.db].")] = None
    durability: Annotated[
        Literal["disk", "process"] | None,
        Parameter(help="What an acknowledged append survives: loss of power too, or a crash [disk]."),
    ] = None
    ballast: Annotated[
        int | None, Parameter(help="Mebibytes held in reserve for the day when the disk is full [16].")
    ] = None


DEFAULT_PLACE: Final = Place()


def serve(
    *,
    place: Place = DEFAULT_PLACE,
    timing: Timing = DEFAULT_TIMING,
    security: Security = DEFAULT_SECURITY,
    work: Work = DEFAULT_WORK,
    logging: Logging = DEFAULT_LOGGING,
) -> int:
    """Run a server until SIGTERM or Ctrl-C, then drain and exit with 0.

    When it is ready it prints one line: unbroken listening on http://HOST:PORT (https with a
    certificate). Each setting can be given as
    UNBROKEN_SETTING too; a flag comes first.
    """
    from unbroken.cli.logs import configure
    from unbroken.server.run import serve as serve_until_stopped

    barriers = (security.access, security.network, security.provider, security.confidence, security.evidence)
    given = [asdict(part) for part in (place, timing, *barriers, work, logging)]
    settings = settings_of({name: value for part in given for name, value in part.items()})
    configure(settings.log_level, settings.log_format, [settings.secret or ""])
    return serve_until_stopped(settings)


def settings_of(given: dict[str, object]) -> Settings:
    """The settings that these flags and the environment make; `ConfigurationError` names the wrong one."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from unbroken.settings import Settings

    flags = {name: value for name, value in given.items() if value not in (None, ())}
    try:
        settings = Settings.model_validate(flags)
        _ = settings.secret
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{name}: {text}" if name else text, setting=name) from None
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(error)) from None
    return settings
