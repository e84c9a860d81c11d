"""The verb mcp: this server's runs and streams as an MCP server, for agents.

The MCP server itself is `unbroken.mcp_server`, which needs the extra `unbroken[mcp]`; it is loaded when the verb runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, read_token, run_async
from unbroken.cli.exits import Exit
from unbroken.errors import ConfigurationError

if TYPE_CHECKING:
    from unbroken.mcp_server.entry import Entry

__all__ = ["mcp"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where agents come in."""

    http: Annotated[
        str | None, Parameter(help="Serve Streamable HTTP at this HOST:PORT, below /mcp, instead of stdin and stdout.")
    ] = None
    http_token_file: Annotated[
        Path | None,
        Parameter(
            help="A file with the bearer token that agents must send over HTTP; else UNBROKEN_MCP_TOKEN is used."
        ),
    ] = None
    http_tls_cert: Annotated[
        Path | None, Parameter(help="A file with the certificate (chain) to show to agents; then it speaks TLS.")
    ] = None
    http_tls_key: Annotated[Path | None, Parameter(help="A file with its private key; else in --http-tls-cert.")] = None
    http_behind_proxy: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="An address or network of the proxies in front: nobody else comes in from afar."),
    ] = ()


DEFAULT_LISTENING: Final = Listening()


def mcp(*, listening: Listening = DEFAULT_LISTENING, connection: Connection = DEFAULT_CONNECTION) -> int:
    """Be an MCP server for agents: they start long work on the server, and the work survives them.

    It speaks MCP on stdin and stdout until they close, or over HTTP with --http; without a token only on the loopback
    interface, and off it only with TLS or behind a proxy that is named. It holds nothing itself: whenever it dies, every
    run goes on.
    """
    try:
        from unbroken.mcp_server.remote import Remote
        from unbroken.mcp_server.transports import loop_factory, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types"}:
            raise
        raise ConfigurationError("the MCP SDK is not installed: pip install 'unbroken[mcp]'", setting="mcp") from None
    remote = Remote(connection.server, token=connection.token, ssl=connection.ssl)
    if listening.http is None:
        if listening != DEFAULT_LISTENING:
            raise ConfigurationError("--http-… is about --http HOST:PORT, which is not there", setting="http")
        run_async(serve_stdio(remote))
        return Exit.OK
    run_async(serve_http(remote, _entry(listening.http, listening)), loop_factory=loop_factory())
    return Exit.OK


def _entry(address: str, listening: Listening) -> Entry:
    from unbroken.auth.forwarded import Proxies
    from unbroken.mcp_server.entry import Entry

    host, port = Entry.parse_address(address)
    behind = listening.http_behind_proxy
    encrypted = listening.http_tls_cert is not None
    return Entry(
        host=host,
        port=port,
        token=read_token(listening.http_token_file, "UNBROKEN_MCP_TOKEN", setting="http_token_file"),
        certificate=listening.http_tls_cert,
        key=listening.http_tls_key,
        proxies=Proxies.parse(behind, encrypted=encrypted, setting="http_behind_proxy") if behind else None,
    )
