"""Writes that are charged: the room that one takes is held until it is decided, and given back when nothing was stored.

`Streams` hands such writes over with what was charged for them, so that there is one place that knows what becomes of it.
It decides nothing about who is charged, and nothing about what may be written.
"""

from __future__ import annotations

import asyncio
from functools import partial

from unbroken.errors import UnbrokenError, UnknownOutcomeError
from unbroken.log import Decided, Log, settle
from unbroken.messages import SessionInfo
from unbroken.quotas import Charge, Quotas, kept_bytes
from unbroken.store.base import Appended, Created, Done, PutSession, Rejected, WriteOp, WriteResult

__all__ = ["Metered"]


class Metered:
    """The log, for writes that are charged."""

    def __init__(self, log: Log, quotas: Quotas) -> None:
        self._log = log
        self._quotas = quotas

    def submit_to(self, decided: Decided, op: WriteOp, charge: Charge | None) -> None:
        """As `Log.submit_to`; None: nobody was charged."""
        if charge is None:
            self._log.submit_to(decided, op)
            return
        try:
            self._log.submit_to(partial(self._decide, decided, charge), op)
        except UnbrokenError:
            self._quotas.settle(charge, stored=False)
            raise

    def _decide(self, decided: Decided, charge: Charge, outcome: WriteResult | UnbrokenError) -> None:
        self._quotas.settle(charge, stored=_is_stored(outcome))
        decided(outcome)

    def submit(self, op: WriteOp, charge: Charge | None) -> asyncio.Future[WriteResult]:
        """As `Log.submit`."""
        future: asyncio.Future[WriteResult] = asyncio.get_running_loop().create_future()
        self.submit_to(partial(settle, future), op, charge)
        return future

    async def write(self, op: WriteOp, charge: Charge | None) -> WriteResult:
        """As `Log.write`."""
        try:
            await self._log.room()
        except BaseException:
            if charge is not None:
                self._quotas.settle(charge, stored=False)
            raise
        result = await self.submit(op, charge)
        if isinstance(result, Rejected):
            raise result.error
        return result

    async def put_session(self, op: PutSession, found: SessionInfo | None) -> WriteResult:
        """Write `op`, charged for what its session will take more than `found` does.

        One that is there changes its state also without room.
        """
        more = kept_bytes(op.metadata or "{}") - (0 if found is None else kept_bytes(found.metadata))
        if more <= 0 or (found is not None and op.metadata is None):
            return await self.write(op, None)
        await self._quotas.keep(op.principal, more)
        return await self.write(op, Charge(op.principal, more))


def _is_stored(outcome: WriteResult | UnbrokenError) -> bool:
    """Whether what was to be written is there now and was not before; also when nobody knows."""
    match outcome:
        case Created():
            return outcome.created
        case Done():
            return True
        case Appended():
            return not outcome.duplicate
        case _:
            return isinstance(outcome, UnknownOutcomeError)
