"""The audit log of the verbs that change a database without a server.

What is done with a file is done by the operator, and is worth the same entries as at a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from unbroken.observe.audit import Audit

__all__ = ["AuditFile", "audited"]

AuditFile = Annotated[
    Path | None, Parameter(env_var="UNBROKEN_AUDIT", help="A file to whose end the audit log is written.")
]


@contextmanager
def audited(path: Path | None) -> Iterator[Audit]:
    """An audit log that goes into the file, if one is given; `ConfigurationError` when that cannot be written."""
    from unbroken.clock import SystemClock
    from unbroken.limits import DEFAULT_LIMITS
    from unbroken.observe.audit import Audit

    audit = Audit(SystemClock(), DEFAULT_LIMITS)
    if path is not None:
        audit.write_to(path)
    try:
        yield audit
    finally:
        audit.close()
