"""Says what a failure of SQLite means to whoever wrote or read: one of the store's typed errors, or a defect of ours.

`connection` is the only caller. It never hides a failure and never retries.
"""

from __future__ import annotations

import apsw

from unbroken.errors import CorruptError, StoreError, StoreFullError, StoreUnavailableError, UnknownOutcomeError

__all__ = ["translated"]

_DAMAGED = (apsw.CorruptError, apsw.NotADBError)
_WAITED = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)
_DAMAGED_PAGE = apsw.SQLITE_IOERR_DATA
_ENVIRONMENT = (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError, apsw.NoMemError)


def translated(error: apsw.Error, *, committing: bool = False) -> StoreError | None:
    """The store's error for one of SQLite's; None when it can only be a defect in our own statements.

    A commit that fails with anything but "full", "busy" or "damaged" may have become durable all the same: a crash right
    after it can bring it back, so its outcome is unknown. "Full" is certain: the record that commits was not written.
    """
    what = f"SQLite says: {error}"
    if isinstance(error, apsw.FullError):
        return StoreFullError(what)
    if isinstance(error, _WAITED):
        return StoreUnavailableError(f"another process kept the database locked; {what}")
    if isinstance(error, _DAMAGED):
        return CorruptError(what)
    if committing:
        return UnknownOutcomeError(what)
    if getattr(error, "extendedresult", 0) == _DAMAGED_PAGE:  # an error that a VFS in Python raised has none
        return CorruptError("a page of the database does not match its checksum")
    if isinstance(error, _ENVIRONMENT):
        return StoreUnavailableError(what)
    return None
