"""The one gate: whether a principal may do what it asks with a stream or session, and what it is told when not.

`Streams` asks it of everything that it gives out or makes. Pure: it is handed what was found and decides; what may not even
be read is answered like what is not there.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from unbroken.errors import ForbiddenError, NotFoundError, UnauthorizedError
from unbroken.identity import Principal, Verb

__all__ = [
    "admit",
    "admit_session",
    "check_creating",
    "check_fresh",
    "check_looking",
    "check_looking_session",
    "check_session",
]


class _Found(Protocol):
    """A stream, as far as it matters here."""

    @property
    def epoch(self) -> int: ...


S = TypeVar("S", bound=_Found)
T = TypeVar("T")


def check_fresh(principal: Principal, now_ms: int) -> None:
    """`UnauthorizedError` when the time of its credential is over."""
    if principal.expires_ms is not None and principal.expires_ms <= now_ms:
        raise UnauthorizedError("the credential has expired")


def check_looking(principal: Principal, name: str, may: Verb) -> None:
    """Raise as `admit` does for what is not there, unless it could give something, or `ForbiddenError`, for some stream.

    It is asked before the store is: what nobody looks for shows by no delay whether it is there.
    """
    if not principal.may_ever(may, name) and not principal.may_ever(Verb.READ, name):
        raise _no_stream(name)


def admit(principal: Principal, name: str, found: S | None, may: Verb) -> S:
    """`found`, which has the name, when the principal may do `may` with it.

    `NotFoundError` when there is none, or when it may not even be read; `ForbiddenError` when only the verb is missing.
    """
    if found is not None:
        if principal.may(may, name, found.epoch):
            return found
        if principal.may(Verb.READ, name, found.epoch):
            raise _forbidden(name, may)
    raise _no_stream(name)


def check_creating(principal: Principal, name: str, may: Verb) -> None:
    """Raise as `admit` does, without looking, unless the principal may make a stream of this name."""
    if principal.may(may, name):
        return
    if principal.may(Verb.READ, name):
        raise _forbidden(name, may)
    raise _no_stream(name)


def check_looking_session(principal: Principal, name: str, may: Verb) -> None:
    """As `check_looking`, for a session."""
    if not principal.may_session(may, name) and not principal.may_session(Verb.READ, name):
        raise _no_session(name)


def admit_session(principal: Principal, name: str, found: T | None, may: Verb) -> T:
    """As `admit`, for a session. Only a grant of a prefix speaks of sessions, and of those whose names begin so."""
    if found is not None:
        if principal.may_session(may, name):
            return found
        if principal.may_session(Verb.READ, name):
            raise _no_right(name, may)
    raise _no_session(name)


def check_session(principal: Principal, name: str, may: Verb) -> None:
    """`ForbiddenError` unless the principal may do `may` with a session of this name, whether or not there is one."""
    if not principal.may_session(may, name):
        raise _no_right(name, may)


def _no_stream(name: str) -> NotFoundError:
    return NotFoundError(f"no stream {name!r}", stream=name)


def _no_session(name: str) -> NotFoundError:
    return NotFoundError(f"no session {name!r}", session=name)


def _forbidden(name: str, may: Verb) -> ForbiddenError:
    return ForbiddenError(f"{may} is not granted for {name!r}", verb=may.value, stream=name)


def _no_right(session: str, may: Verb) -> ForbiddenError:
    return ForbiddenError(f"{may} is not granted for the session {session!r}", verb=may.value, session=session)
