"""What an entry may ask of streams and sessions: every face calls this, and says who is asking.

`Streams` checks names, limits and ownership, then hands writes to the log and reads to the store. A `StreamInfo` that it
gave out is the proof that its holder may use that stream. It knows no transport and nobody who watches.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

from unbroken.clock import Clock
from unbroken.errors import (
    AlreadyExistsError,
    EpochMismatchError,
    InvalidError,
    QuotaError,
    TooLargeError,
    TrimmedError,
)
from unbroken.gate import (
    admit,
    admit_session,
    check_creating,
    check_fresh,
    check_looking,
    check_looking_session,
    check_session,
)
from unbroken.identity import Principal, Verb
from unbroken.limits import Limits
from unbroken.log import Decided, Log
from unbroken.messages import (
    FILE_KIND,
    Cursor,
    NewMessage,
    Seq,
    SessionInfo,
    SessionState,
    StreamInfo,
    check_name,
    encode_message,
    files_prefix,
)
from unbroken.metered import Metered
from unbroken.observe.deeds import Deeds
from unbroken.protocol.salts import SALT_BYTES
from unbroken.quotas import Charge, Headroom, Quotas, is_charged, kept_bytes
from unbroken.redaction.redactor import Redactor
from unbroken.requests import PLAIN, AppendOptions, NewStream, check_json, check_new, check_producer
from unbroken.store.base import (
    Append,
    Appended,
    Batch,
    Close,
    Created,
    CreateStream,
    DeleteSession,
    DeleteStream,
    Done,
    Page,
    PutSession,
    Read,
    Rejected,
    StreamFilter,
    StreamingMessageRepository,
    Touch,
    Trim,
    UpdateStream,
    WriteResult,
)
from unbroken.store.erasing import check_erased
from unbroken.store.lineage import genesis_of
from unbroken.store.recompute import Recomputing, Verification

__all__ = ["Streams", "Verification"]

_DECIMAL: Final = re.compile(r"(?:0|[1-9][0-9]{0,15})", re.ASCII)
_LAST: Final = re.compile(r"last:([1-9][0-9]{0,8})", re.ASCII)


class Streams:
    """Streams and sessions, as far as a principal may use them."""

    def __init__(self, log: Log, store: StreamingMessageRepository, *, limits: Limits, clock: Clock) -> None:
        self.log = log
        self.store = store
        self.limits = limits
        self.clock = clock
        self.quotas = Quotas(limits, store.usage, now=lambda: asyncio.get_running_loop().time())
        self._metered = Metered(log, self.quotas)
        self.deeds = Deeds()
        """Told of everything that somebody changes or deletes."""
        self._verifying = asyncio.Lock()
        self._verifying_of: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Of each owner for whom something is verified now: of its own, one waits for the lock of all."""
        self.redactor: Redactor | None = None
        """What takes secrets out of all that is stored; set before anything is."""

    # --- streams ------------------------------------------------------------------------------------------------------

    async def create(self, principal: Principal, name: str, new: NewStream, *, may: Verb = Verb.APPEND) -> Created:
        """Create the stream, or find the one of that name (`created` False), durably; `may` is the right that it takes.

        Raises what `get` does where that is missing, `AlreadyExistsError` when the existing one has another kind, content
        type or session (Durable Streams compares more, itself), `InvalidError` and `TooLargeError` for bad fields,
        `TransitionError` for a paused session.
        """
        check_new(name, new, self.limits)
        known = await self.known(principal, name, may)
        if known is None and new.session is not None:
            check_session(principal, new.session, may)
        result = await self._create(principal, name, new) if known is None else Created(known, created=False)
        found = result.stream
        if found.deleted:
            raise AlreadyExistsError(f"{name!r} was deleted, but its forks still need it", stream=name)
        same = (found.kind, found.content_type, found.session) == (new.kind, new.content_type, new.session)
        if not result.created and not same:
            raise AlreadyExistsError(f"{name!r} exists with another kind, content type or session", stream=name)
        return result

    async def known(self, principal: Principal, name: str, may: Verb) -> StreamInfo | None:
        """None when the principal may create the stream; the one that is there when it may use no other of that name.

        Raises as `get` does when neither is so.
        """
        check_name(name, self.limits)
        check_fresh(principal, self.clock.now_ms())
        if principal.may(may, name):
            return None
        check_looking(principal, name, may)
        found = await self.store.get(principal, name)
        if found is None:
            check_creating(principal, name, may)
            return None
        return admit(principal, name, found, may)

    async def _create(self, principal: Principal, name: str, new: NewStream) -> Created:
        op = self._creating(principal, name, new)
        count, size = len(op.messages), sum(map(len, op.messages))
        beside = kept_bytes(op.metadata, op.run, None if op.close is None else op.close.reason)
        try:
            if count:
                await self.quotas.pace(principal)
            await self.quotas.create(principal, count, size, beside_bytes=beside)
        except QuotaError:
            if (found := await self.store.get(principal, name)) is None:
                raise
            return Created(found, created=False)
        result = await self._metered.write(op, Charge(principal, size + beside, streams=1))
        assert isinstance(result, Created)
        return result

    def _creating(self, principal: Principal, name: str, new: NewStream) -> CreateStream:
        now = self.clock.now_ms()
        lease = new.lease
        seconds = self.lease_seconds(new.lease_seconds)
        return CreateStream(
            principal=principal,
            name=name,
            now_ms=now,
            kind=new.kind,
            content_type=new.content_type,
            session=new.session,
            metadata=self.redacted(new.metadata),
            ttl_seconds=new.ttl_seconds,
            expires_ms=new.expires_ms if new.ttl_seconds is None else now + new.ttl_seconds * 1000,
            fork=new.fork,
            messages=self._encode(new.messages, now, lease.id if lease else None),
            close=self._closing(new.close),
            lease_producer=lease.id if lease else None,
            lease_epoch=lease.epoch if lease else 0,
            lease_until_ms=now + int(seconds * 1000) if lease else None,
            run=new.run,
            salt_seed=secrets.token_bytes(SALT_BYTES),
        )

    async def get(self, principal: Principal, name: str, *, may: Verb, deleted: bool = False) -> StreamInfo:
        """The stream as it is now, for one who may do `may` with it: what is given is the right to do that, and no more.

        `NotFoundError` when there is none, or none that this principal may read; `ForbiddenError` when it may read it, and
        may not do this. With `deleted` a stream that only its forks keep is given too.
        """
        check_name(name, self.limits)
        check_fresh(principal, self.clock.now_ms())
        check_looking(principal, name, may)
        info = await self.store.get(principal, name)
        return admit(principal, name, None if info is None or (info.deleted and not deleted) else info, may)

    async def list(
        self, principal: Principal, where: StreamFilter, *, limit: int, page: str | None
    ) -> Page[StreamInfo]:
        """The streams that the principal may read, newest first, `limit` at a time."""
        check_fresh(principal, self.clock.now_ms())
        among = principal.granted(Verb.READ)
        where = where if among is None else replace(where, among=among)
        return await self.store.list_streams(principal, where, limit=self._page(limit), after=page)

    def append(
        self, stream: StreamInfo, messages: Sequence[NewMessage], options: AppendOptions = PLAIN
    ) -> asyncio.Future[WriteResult]:
        """Queue an append and return at once: the future gives `Appended` or `Rejected` when it is decided.

        Raises at once `InvalidError` and `TooLargeError` for bad messages, `OverloadedError` and `DrainingError` when it
        was not queued, `QuotaError` when its owner or tenant may not have it now.
        """
        return self._metered.submit(*self._charged_append(stream, messages, options))

    def append_to(
        self, decided: Decided, stream: StreamInfo, messages: Sequence[NewMessage], options: AppendOptions = PLAIN
    ) -> None:
        """As `append`, with a function that is told the outcome in place of a future."""
        self._metered.submit_to(decided, *self._charged_append(stream, messages, options))

    def append_encoded(self, decided: Decided, op: Append, charge: Charge | None) -> None:
        """As `append_to`, for messages that `encode` has given and whoever pays for them was charged for."""
        self._metered.submit_to(decided, op, charge)

    def encode(self, messages: Sequence[NewMessage], now: int) -> tuple[bytes, ...]:
        """The messages of one append without a producer, checked and encoded; raises what `append` raises at once.

        `now` is the time by `clock`.
        """
        if len(messages) == 1:
            one = messages[0] if self.redactor is None else self.redactor.message(messages[0])
            return (encode_message(one, time_ms=now, producer=None, limits=self.limits),)
        if not messages:
            raise InvalidError("an append has at least one message, or closes", field="messages")
        return self._encode(messages, now, None)

    def headroom(self, by: Principal) -> Headroom | None:
        """What `by` may append now, None when nothing bounds it; `QuotaError` when it has used up what it may take."""
        return self.quotas.headroom(by) if is_charged(by) else None

    def _charged_append(
        self, stream: StreamInfo, messages: Sequence[NewMessage], options: AppendOptions
    ) -> tuple[Append, Charge | None]:
        op, by = self._append(stream, messages, options), _payer(stream, options.by)
        headroom = self.headroom(by)
        return op, None if headroom is None else headroom.take(len(op.messages), sum(map(len, op.messages)))

    def _append(self, stream: StreamInfo, messages: Sequence[NewMessage], options: AppendOptions) -> Append:
        if not messages and options.close is None:
            raise InvalidError("an append has at least one message, or closes", field="messages")
        now = self.clock.now_ms()
        producer = options.producer
        if producer is not None:
            check_producer(producer, self.limits)
        expected = options.expected_head
        encoded = self._encode(messages, now, producer.id if producer else None, verbatim=options.verbatim)
        return Append(
            stream=stream.id,
            epoch=stream.epoch,
            messages=encoded,
            now_ms=now,
            producer=producer,
            expected_head=None if expected is None else Seq(expected),
            writer_seq=options.writer_seq,
            close=self._closing(options.close),
            name_of=stream if options.by_name else None,
            beside_lease=options.beside_lease,
        )

    async def room(self, stream: StreamInfo, by: Principal | None = None) -> None:
        """Wait, within bounds, until the log and the rates of who appends (None: of the owner) let an append pass."""
        await self.log.room()
        await self.quotas.pace(_payer(stream, by))

    async def append_durably(
        self, stream: StreamInfo, messages: Sequence[NewMessage], options: AppendOptions = PLAIN
    ) -> Appended:
        """Append and wait until it is durable, waiting for room first; a rejection is raised as its error."""
        await self.room(stream, options.by)
        result = await self.append(stream, messages, options)
        if isinstance(result, Rejected):
            raise result.error
        assert isinstance(result, Appended)
        return result

    async def read(self, stream: StreamInfo, after: Seq, *, messages_max: int | None = None) -> Read:
        """Messages behind `after`, bounded in number and bytes; raises `TrimmedError` instead of leaving a hole.

        Raises `ErasedError` where what the stream held was erased.
        """
        check_erased(stream)
        found = await self._read(stream, after, messages_max=messages_max)
        check_erased(found.stream)
        return found

    async def _read(self, stream: StreamInfo, after: Seq, *, messages_max: int | None = None) -> Read:
        """As `read`, also of a stream that was erased: what is left of it is for verifying."""
        limits = self.limits
        count = min(messages_max or limits.read_messages_max, limits.read_messages_max)
        found = await self.store.read(stream.id, after, messages_max=count, bytes_max=limits.read_bytes_max)
        if found.trimmed:
            raise TrimmedError(first=found.stream.first, stream=stream.name)
        return found

    def position(self, stream: StreamInfo, after: str) -> Seq:
        """The seq that `after` means for `stream` (PROTOCOL.md 1.5).

        Raises `EpochMismatchError`, `TrimmedError`, `ErasedError`, or `InvalidError` for bad syntax and positions beyond
        the head.
        """
        check_erased(stream)
        if after == "start":
            return Seq(stream.first - 1)
        if after == "now":
            return stream.head
        if match := _LAST.fullmatch(after):
            return Seq(max(stream.first - 1, stream.head - int(match[1])))
        cursor = Cursor(stream.epoch, Seq(int(after))) if _DECIMAL.fullmatch(after) else Cursor.parse(after)
        if cursor.epoch != stream.epoch:
            raise EpochMismatchError(epoch=stream.epoch, stream=stream.name)
        if cursor.seq > stream.head:
            raise InvalidError("the cursor is beyond the head", field="after", head=stream.head)
        if cursor.seq < stream.first - 1:
            raise TrimmedError(first=stream.first, stream=stream.name)
        return cursor.seq

    async def set_metadata(self, stream: StreamInfo, metadata: str) -> StreamInfo:
        """Replace the stream's metadata (a JSON object as text)."""
        check_json("metadata", metadata, self.limits.metadata_bytes_max, self.limits)
        return await self._done(
            UpdateStream(
                stream=stream.id, epoch=stream.epoch, now_ms=self.clock.now_ms(), metadata=self.redacted(metadata)
            )
        )

    async def trim(self, stream: StreamInfo, first: int, *, by: Principal | None = None) -> StreamInfo:
        """Drop every message before `first`; viewers behind it are told. `by` (None: the server) goes into the audit log."""
        with self.deeds.of(by, "trim", stream):
            return await self._done(Trim(stream=stream.id, epoch=stream.epoch, first=Seq(first)))

    async def delete(self, stream: StreamInfo, *, by: Principal | None = None) -> None:
        """Delete the stream and its messages, the files of a run first; its name can be used again, with a new epoch.

        `by` as in `trim`.
        """
        with self.deeds.of(by, "delete", stream):
            if stream.run is not None:
                await self._delete_files(stream)
            await self.log.write(DeleteStream(stream=stream.id, epoch=stream.epoch))

    async def _delete_files(self, run: StreamInfo) -> None:
        owner, where = Principal(run.tenant, run.owner), StreamFilter(prefix=files_prefix(run.name), kind=FILE_KIND)
        while found := (
            await self.store.list_streams(owner, where, limit=self.limits.page_items_max, after=None)
        ).items:
            await self.log.write_all([DeleteStream(stream=info.id, epoch=info.epoch) for info in found])

    async def touch(self, stream: StreamInfo) -> None:
        """Slide the expiry of a stream with a sliding time to live."""
        if stream.ttl_seconds is not None:
            await self.log.write(Touch(stream=stream.id, now_ms=self.clock.now_ms()))

    async def verify(self, stream: StreamInfo) -> Verification:
        """Recompute the hash chain over everything retained; reads in bounded steps and changes nothing.

        However many are asked for, they take turns, and so do their owners: one of them occupies the store, others of the
        loop come between, and an owner waits for one step of each other owner before each of its own.

        The first message that does not fit is named in the result, or the stretch that it is in. Damage by somebody who
        recomputed what is stored beside the messages too shows behind it, where the first hash is that was left alone; damage
        in messages that were stored at once with the first retained one, and trimmed, shows in that one's stretch. Raises
        `CorruptError` where a checksum fails, and where messages are missing. A chain that begins as that of another stream
        is damaged from its first message on.
        """
        seq = Seq(stream.first - 1)
        check = Recomputing(stream, seq, await self.store.hash_at(stream.id, seq))
        if seq == 0 and check.head != await genesis_of(self.store, stream):
            return check.broken(Seq(1), Seq(1))
        owner = (stream.tenant, stream.owner)
        turn = self._verifying_of.setdefault(owner, asyncio.Lock())
        while True:
            async with turn, self._verifying:
                found = await self._read(stream, check.seq)
                for batch in found.batches:
                    broken = check.take(batch)
                    if broken is not None:
                        return broken
                    await asyncio.sleep(0)
            if not found.batches:
                return check.end(found.stream)

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def put_session(
        self, principal: Principal, name: str, *, state: SessionState | None = None, metadata: str | None = None
    ) -> Done:
        """Create the session, or change its state or metadata: whoever may manage sessions of this name."""
        check_name(name, self.limits)
        check_fresh(principal, self.clock.now_ms())
        check_session(principal, name, Verb.MANAGE)
        if metadata is not None:
            check_json("metadata", metadata, self.limits.metadata_bytes_max, self.limits)
            metadata = self.redacted(metadata)
        with self.deeds.of(principal, "put", session=name):
            op = PutSession(principal=principal, name=name, now_ms=self.clock.now_ms(), state=state, metadata=metadata)
            charged = is_charged(principal)
            found = await self.store.get_session(principal, name) if charged else None
            result = await (self._metered.put_session(op, found) if charged else self.log.write(op))
        assert isinstance(result, Done)
        return result

    async def get_session(self, principal: Principal, name: str, *, may: Verb) -> SessionInfo:
        """The session, for one who may do `may` with it; raises as `get` does."""
        check_name(name, self.limits)
        check_fresh(principal, self.clock.now_ms())
        check_looking_session(principal, name, may)
        return admit_session(principal, name, await self.store.get_session(principal, name), may)

    async def list_sessions(self, principal: Principal, *, limit: int, page: str | None) -> Page[SessionInfo]:
        """The sessions that the principal may read, newest first."""
        check_fresh(principal, self.clock.now_ms())
        among = principal.granted(Verb.READ)
        return await self.store.list_sessions(principal, limit=self._page(limit), after=page, among=among)

    async def delete_session(self, principal: Principal, name: str) -> None:
        """Delete a session that has no streams left."""
        await self.get_session(principal, name, may=Verb.MANAGE)
        with self.deeds.of(principal, "delete", session=name):
            await self.log.write(DeleteSession(principal=principal, name=name))

    async def read_session(
        self, principal: Principal, name: str, *, limit: int, page: str | None
    ) -> Page[tuple[StreamInfo, Batch]]:
        """Every message of every stream of the session that the principal may read, in order, in pages."""
        await self.get_session(principal, name, may=Verb.READ)
        where = StreamFilter(session=name, among=principal.granted(Verb.READ))
        return await self.store.read_session(principal, where, limit=self._page(limit), after=page)

    # --- checks -------------------------------------------------------------------------------------------------------

    def lease_seconds(self, seconds: float | None) -> float:
        """`seconds` when it is within the limits for a lease, the default for None, else `InvalidError`."""
        limits = self.limits
        if seconds is None:
            return limits.lease_seconds
        if not limits.lease_seconds_min <= seconds <= limits.lease_seconds_max:
            raise InvalidError(
                f"a lease lasts {limits.lease_seconds_min} to {limits.lease_seconds_max} seconds", field="seconds"
            )
        return seconds

    def _page(self, limit: int) -> int:
        if limit < 1:
            raise InvalidError("a page has at least one item", field="limit")
        return min(limit, self.limits.page_items_max)

    async def _done(self, op: UpdateStream | Trim) -> StreamInfo:
        result = await self.log.write(op)
        assert isinstance(result, Done)
        assert result.stream is not None
        return result.stream

    def redacted(self, text: str) -> str:
        """A JSON object, as text, as it may be stored."""
        return text if self.redactor is None or text == "{}" else self.redactor.json(text)

    def redacted_text(self, text: str) -> str:
        """A text, such as a reason or a label, as it may be stored."""
        return text if self.redactor is None else self.redactor.text(text)

    def _closing(self, close: Close | None) -> Close | None:
        return close if close is None or self.redactor is None else Close(close.state, self.redacted(close.reason))

    def _encode(
        self, messages: Sequence[NewMessage], now: int, producer: str | None, *, verbatim: bool = False
    ) -> tuple[bytes, ...]:
        limits = self.limits
        if len(messages) > limits.append_messages_max:
            raise TooLargeError(
                f"an append has at most {limits.append_messages_max} messages", limit="append_messages_max"
            )
        if self.redactor is not None and not verbatim:
            messages = [self.redactor.message(message) for message in messages]
        encoded = tuple(
            [encode_message(message, time_ms=now, producer=producer, limits=limits) for message in messages]
        )
        if len(encoded) > 1 and sum(map(len, encoded)) > limits.append_bytes_max:
            raise TooLargeError(f"an append has at most {limits.append_bytes_max} bytes", limit="append_bytes_max")
        return encoded


def _payer(stream: StreamInfo, by: Principal | None) -> Principal:
    """Who is charged for an append to `stream`."""
    return Principal(stream.tenant, stream.owner) if by is None else by
