# ruff: noqa: D417 - what all verbs share says for itself what it is
"""The verbs token and share: who may come in, decided in the database itself; and a link for reading, from the server.

`token` is for whoever may write the database; it works while servers use it. `share` asks a server with one's own credential.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import quote

from cyclopts import Parameter

from unbroken.cli.auditing import AuditFile, audited
from unbroken.cli.connection import DEFAULT_CONNECTION, Connection, Json, run_async
from unbroken.cli.encryption import KeyFile, keyring
from unbroken.cli.exits import Exit, UsageError
from unbroken.cli.output import human_time, note, print_json, print_table
from unbroken.clock import SystemClock
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from unbroken.auth.stored import NewToken, StoredTokens
    from unbroken.observe.audit import Audit
    from unbroken.observe.audit_events import TokenRevoked
    from unbroken.store.tokens import StoredToken

__all__ = ["NO_RIGHTS", "WHOSE", "Rights", "Whose", "seconds_of", "share", "token"]

PAGE_ITEMS: Final = 500
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """Whose things are meant."""

    subject: Annotated[str | None, Parameter(help="The user; that of a server without users by default.")] = None
    tenant: Annotated[str, Parameter(help="The tenant of that user.")] = "local"
    jti: Annotated[str | None, Parameter(help="To revoke: the id (jti) of a token of the identity provider.")] = None

    @property
    def principal(self) -> Principal:
        """The owner."""
        return Principal(self.tenant, self.subject or Principal().subject)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a new token may do; without any of these, all that its owner may."""

    name: Annotated[tuple[str, ...], Parameter(help="Only this stream; may be given several times.")] = ()
    prefix: Annotated[tuple[str, ...], Parameter(help="Only streams and sessions whose names begin so.")] = ()
    verb: Annotated[tuple[Verb, ...], Parameter(help="Only this right: read, append, start, cancel or manage.")] = ()
    expires: Annotated[str | None, Parameter(help="For how long it is good, as 12h or 30d; for ever by default.")] = (
        None
    )
    label: Annotated[str, Parameter(help="What it is for; it is named as who acts with it.")] = ""

    def new(self, now_ms: int) -> NewToken:
        """The token that is asked for."""
        from unbroken.auth.stored import NewToken

        verbs = frozenset(self.verb or Verb)
        grants = [Grant(name, verbs) for name in self.name] + [
            Grant(start, verbs, prefix=True) for start in self.prefix
        ]
        if self.verb and not grants:
            grants = [Grant("", verbs, prefix=True)]
        ends = None if self.expires is None else now_ms + seconds_of(self.expires) * 1000
        return NewToken(label=self.label, grants=tuple(grants) or None, expires_ms=ends)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where the tokens are, and who is told of what is done to them."""

    store: Annotated[str, Parameter(env_var="UNBROKEN_STORE", help="The database, as sqlite:///FILE.")] = (
        "sqlite:///unbroken.db"
    )
    encryption_key_file: KeyFile = None
    audit: AuditFile = None


DATABASE: Final = Database()
WHOSE: Final = Whose()
NO_RIGHTS: Final = Rights()


def seconds_of(text: str) -> int:
    """A time such as 90s, 15m, 12h or 30d in seconds; `UsageError` for what is none."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"a time is a number with s, m, h or d, as 12h, not {text!r}")
    return int(found[1]) * _SECONDS[found[2]]


def token(
    action: Literal["create", "list", "revoke"],
    token_id: str = "",
    /,
    *,
    whose: Whose = WHOSE,
    rights: Rights = NO_RIGHTS,
    database: Database = DATABASE,
    json: Json = False,
) -> int:
    """Make, list and revoke tokens in a database, also while servers use it. A secret is shown once and stored nowhere.

    `token create --subject alice` prints a key with which one is alice; `token revoke ID --subject alice` takes it back. Of
    the identity provider's tokens `token revoke --jti ID` revokes one, `token revoke --subject alice` all alice has by now.

    Args:
        action: What to do.
        token_id: The id of the token to revoke, as `list` shows it.
    """
    if action != "revoke" and (token_id or whose.jti is not None):
        raise UsageError("an id is for revoke")
    if action == "revoke" and bool(token_id) == bool(whose.jti) and (token_id or not whose.subject):
        raise UsageError("revoke takes the id of a token, --jti, or --subject for all tokens of the identity provider")

    new = rights.new(SystemClock().now_ms())

    async def work() -> int:
        from unbroken.auth.stored import StoredTokens
        from unbroken.cli.offline import opened

        with audited(database.audit) as audit:
            async with opened(database.store, keyring(database.encryption_key_file)) as streams:
                tokens = StoredTokens(streams.store, limits=DEFAULT_LIMITS, clock=SystemClock())
                if action == "create":
                    return await _create(tokens, whose.principal, new, audit, as_json=json)
                if action == "list":
                    return await _list(tokens, whose.principal, as_json=json)
                audit.record(await _revoke(tokens, whose, token_id))
                return Exit.OK

    return run_async(work())


async def _create(tokens: StoredTokens, owner: Principal, new: NewToken, audit: Audit, *, as_json: bool) -> int:
    from unbroken.auth.stored import made_event

    made = await tokens.make(owner, new)
    audit.record(made_event(made.token, None))
    if as_json:
        print_json({"id": made.token.id, "token": made.secret, "expires": made.token.expires_ms})
    else:
        sys.stdout.write(f"{made.secret}\n")
        note(f"the id is {made.token.id}; the secret is not shown again")
    return Exit.OK


async def _list(tokens: StoredTokens, owner: Principal, *, as_json: bool) -> int:
    rows: list[list[str]] = []
    page: str | None = None
    while True:
        found = await tokens.list(owner, limit=PAGE_ITEMS, page=page)
        for one in found.items:
            if as_json:
                print_json(_facts(one))
            else:
                ends = "never" if one.expires_ms is None else human_time(one.expires_ms)
                rows.append([one.id, one.kind.value, one.actor, _grants(one), human_time(one.created_ms), ends])
        page = found.next
        if page is None:
            break
    if not as_json:
        print_table(["ID", "KIND", "LABEL", "GRANTS", "MADE (UTC)", "ENDS (UTC)"], rows)
    return Exit.OK


async def _revoke(tokens: StoredTokens, whose: Whose, token_id: str) -> TokenRevoked:
    from unbroken.auth.stored import credential_of
    from unbroken.observe.audit_events import TokenRevoked

    tenant, owner = whose.tenant, whose.principal.subject
    if token_id:
        await tokens.delete(whose.principal, token_id)
        return TokenRevoked(credential=credential_of(token_id), tenant=tenant, owner=owner)
    if whose.jti is not None:
        credential = f"jwt:{whose.jti}"
        await tokens.revoke(Principal(tenant, credential=credential))
        return TokenRevoked(credential=credential, tenant=tenant)
    await tokens.revoke_subject(tenant, owner)
    return TokenRevoked(credential="", tenant=tenant, owner=owner, reason="all_of_the_identity_provider")


def _facts(one: StoredToken) -> dict[str, object]:
    grants = None if one.grants is None else [str(grant) for grant in one.grants]
    facts: dict[str, object] = {"id": one.id, "kind": one.kind.value, "label": one.actor, "grants": grants}
    return {**facts, "created": one.created_ms, "expires": one.expires_ms}


def _grants(one: StoredToken) -> str:
    return "everything" if one.grants is None else "; ".join(map(str, one.grants))


def share(
    name: str,
    /,
    *,
    expires: str = "1d",
    label: str = "",
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Print a link with which anybody can read a stream in a browser, until it ends or is revoked.

    The secret is behind the `#`, which browsers do not send. The link is for this stream, not for a later one of its name.
    `unbroken token revoke ID` takes it back.

    Args:
        name: The stream's name.
        expires: For how long, as 12h or 7d.
        label: What it is for.
    """
    seconds = seconds_of(expires)

    async def work() -> int:
        async with connection.client() as client:
            view = await client.state(name)
            made = await client.tokens.share(name, epoch=view.epoch, expires_in=seconds, label=label)
        url = f"{connection.server.rstrip('/')}/#/stream/{quote(name)}?token={quote(made.token)}"
        if json:
            print_json({"id": made.id, "url": url, "expires": made.expires})
        else:
            sys.stdout.write(f"{url}\n")
            note(f"the id is {made.id}; it ends at {human_time(made.expires)} UTC")
        return Exit.OK

    return run_async(work())
