"""Whose things are asked for, who acts, and what that one may do with them.

Every entry hands a `Principal` down: `Streams` asks it what it may do, the store takes from it nothing but whose things
are meant. It opens nothing and remembers nothing; credentials become principals in `unbroken.auth`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Grant", "Principal", "Verb"]


class Verb(StrEnum):
    """What can be done with a stream."""

    READ = "read"
    """See that it is there, read, subscribe, list."""
    APPEND = "append"
    """Create it, append to it, hold its lease, end it."""
    START = "start"
    """Start a run, start it again, answer what it asks."""
    CANCEL = "cancel"
    """Ask it to stop."""
    MANAGE = "manage"
    """Change or delete it, trim it, pause and resume it, and its session too."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Some verbs on the stream `name`, or with `prefix` on every stream whose name begins so.

    With `epoch` only the one stream that had this name at that epoch is meant, not one that takes its name later.
    """

    name: str
    verbs: frozenset[Verb]
    prefix: bool = False
    epoch: int | None = None

    def __str__(self) -> str:
        epoch = "" if self.epoch is None else f"@{self.epoch}"
        return f"{'+'.join(sorted(self.verbs))} {self.name}{'*' * self.prefix}{epoch}"

    @property
    def everything(self) -> bool:
        """Whether it speaks of every stream."""
        return self.prefix and not self.name and self.epoch is None

    def includes(self, other: Grant) -> bool:
        """Whether it speaks of every stream that `other` speaks of; the verbs are not looked at."""
        named = other.name.startswith(self.name) if self.prefix else other.name == self.name and not other.prefix
        return named and self.epoch in {None, other.epoch}

    def covers(self, name: str, epoch: int | None = None) -> bool:
        """Whether it speaks of that stream; of one that is not there yet (`epoch` None) only if any epoch will do."""
        named = name.startswith(self.name) if self.prefix else name == self.name
        return named and self.epoch in {None, epoch}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: passed through every entry down to the store, which sees only what `subject` of `tenant` owns.

    `grants` is None for the owner, who may do everything with what is theirs. `actor` is who acts for them (empty: the
    subject itself). `credential` names what it was proven with (never a secret, and never a name that comes twice),
    `expires_ms` is when that runs out, `issued_ms` since when it was good, where that is known.
    """

    tenant: str = "local"
    subject: str = "local"
    actor: str = ""
    grants: tuple[Grant, ...] | None = None
    credential: str = ""
    expires_ms: int | None = None
    issued_ms: int | None = None

    @property
    def by(self) -> str:
        """Who is to be named as the one who did it."""
        return self.actor or self.subject

    def granted(self, verb: Verb) -> tuple[Grant, ...] | None:
        """The grants that give `verb`, of which each stream that is listed must be covered by one; None: all are."""
        if self.grants is None:
            return None
        found = tuple(grant for grant in self.grants if verb in grant.verbs)
        return None if any(grant.everything for grant in found) else found

    def may_hand_on(self, grant: Grant) -> bool:
        """Whether it may give `grant` to somebody else: only what it may do and manage itself."""
        if self.grants is None:
            return True
        return all(
            any(verb in own.verbs and own.includes(grant) for own in self.grants)
            for verb in (*grant.verbs, Verb.MANAGE)
        )

    def may_session(self, verb: Verb, name: str) -> bool:
        """As `may`, for the session `name`: a prefix is one of names, of streams and sessions; a single name is a stream."""
        if self.grants is None:
            return True
        return any(grant.prefix and verb in grant.verbs and grant.covers(name) for grant in self.grants)

    def may(self, verb: Verb, name: str, epoch: int | None = None) -> bool:
        """Whether it may do `verb` with the stream `name`, whose epoch is `epoch` (None: it is not there yet)."""
        if self.grants is None:
            return True
        return any(verb in grant.verbs and grant.covers(name, epoch) for grant in self.grants)

    def may_ever(self, verb: Verb, name: str) -> bool:
        """Whether it may do `verb` with a stream `name` of any epoch: if not, none that is there can change that."""
        if self.grants is None:
            return True
        return any(verb in grant.verbs and grant.covers(name, grant.epoch) for grant in self.grants)
