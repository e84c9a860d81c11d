"""Where runs are asked for: starting one, trying one again, answering its questions, and seeing what there is to run.

The faces call it on behalf of a principal. Starting is writing a stream down with what is to be executed for it; who executes
it, in this process or in another, is the supervisor's affair.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from unbroken.errors import (
    AlreadyExistsError,
    EndedError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    QuotaError,
    TooLargeError,
    TransitionError,
)
from unbroken.identity import Principal, Verb
from unbroken.messages import NewMessage, StreamId, StreamInfo, check_name
from unbroken.quotas import is_charged
from unbroken.requests import AppendOptions, NewStream
from unbroken.runs.answers import check_answer
from unbroken.runs.catalog import Catalog
from unbroken.runs.history import read_history
from unbroken.runs.spec import INPUT_ID_CHARACTERS_MAX, RunRequest, RunSpec, RunSummary, SourceView, run_name
from unbroken.runs.summary import read_summary
from unbroken.store.base import Appended, Created, Producer
from unbroken.streams import Streams

__all__ = ["RunDesk"]

_RETRY: Final = re.compile(r"(?P<base>.*)\.(?P<number>[1-9][0-9]{0,5})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Place:
    """The stream of a run that is about to exist."""

    name: str
    session: str | None
    metadata: str
    ttl_seconds: int | None


class RunDesk:
    """Starts runs durably; everything else about them is read and cancelled like any stream."""

    def __init__(self, streams: Streams, catalog: Catalog) -> None:
        self._streams = streams
        self.catalog = catalog
        self._starting: dict[object, tuple[str, str, str]] = {}
        """Tenant, owner and name of each run that is about to exist, in the order in which they came."""

    async def start(self, principal: Principal, request: RunRequest) -> Created:
        """Write the run down, durably, or find the one of this name or key (`created` False).

        Raises `InvalidError` for a request that is none and for arguments that do not fit, `UnknownRunnableError`,
        `AlreadyExistsError` when the name or key belongs to other work, `OverloadedError` when too many runs are active.
        """
        spec = request.spec(self._streams.limits)
        unique = f"{principal.tenant}\n{principal.subject}\n{request.key}" if request.key else secrets.token_hex(16)
        name = request.name or run_name(spec, unique)
        await self._streams.known(principal, name, Verb.START)  # before it is told what there is to run
        await self.catalog.find(spec)
        metadata = bytes(request.metadata).decode()
        return await self._create(principal, spec, _Place(name, request.session, metadata, request.ttl_seconds))

    async def _create(self, principal: Principal, spec: RunSpec, place: _Place) -> Created:
        accepted = {
            "type": spec.type,
            "name": spec.name,
            "server": spec.server,
            "arguments": spec.arguments,
            "by": principal.by,
        }
        new = NewStream(
            kind=spec.type,
            session=place.session,
            metadata=place.metadata,
            ttl_seconds=place.ttl_seconds,
            messages=(NewMessage(kind="accepted", json=msgspec.Raw(msgspec.json.encode(accepted))),),
            run=spec.encode(),
        )
        with self._turn(principal, place.name) as earlier:
            try:
                await self._check_room(principal, place.name, earlier)
            except OverloadedError:
                if await self._streams.store.get(principal, check_name(place.name, self._streams.limits)) is None:
                    raise
            created = await self._streams.create(principal, place.name, new, may=Verb.START)
        if not created.created:
            found = created.stream.run
            if found is None or not RunSpec.parse(found).same_work(spec):
                raise AlreadyExistsError(f"{place.name!r} is another run", stream=place.name)
        return created

    @contextmanager
    def _turn(self, principal: Principal, name: str) -> Iterator[frozenset[tuple[str, str, str]]]:
        """Count as a run until it is in the store, for all that come later; gives those that came earlier."""
        earlier, this = frozenset(self._starting.values()), object()
        self._starting[this] = (principal.tenant, principal.subject, name)
        try:
            yield earlier
        finally:
            del self._starting[this]

    async def _check_room(self, principal: Principal, name: str, earlier: Set[tuple[str, str, str]]) -> None:
        """`OverloadedError` when too many runs are active, `QuotaError` when too many of them are its owner's.

        Those that are started at the same time and came `earlier` are active too. The operator itself is not bounded by its
        own, and what it has handed on is.
        """
        limits, owner = self._streams.limits, (principal.tenant, principal.subject)
        stored = await self._streams.store.active_runs(StreamId(0), limit=limits.active_runs_max)
        active = {(info.tenant, info.owner, info.name) for info in stored} | earlier
        active.discard((*owner, name))
        if len(active) >= limits.active_runs_max:
            raise OverloadedError("too many runs are active", limit="active_runs_max", retry_after_seconds=5)
        most = limits.active_runs_of_owner_max
        if most and is_charged(principal) and sum(run[:2] == owner for run in active) >= most:
            text = f"more than the {most} active runs of one owner"
            error = QuotaError(text, limit="active_runs_of_owner_max", retry_after_seconds=5)
            self._streams.quotas.on_exceeded(error, principal)
            raise error

    async def retry(self, principal: Principal, stream: StreamInfo) -> Created:
        """The same work once more, as a run of its own, named after the one that has ended.

        Asked twice it is there once. Raises `NotFoundError` for a stream that is no run, `TransitionError` for a run that has
        not ended or was completed.
        """
        if stream.run is None:
            raise NotFoundError(f"{stream.name!r} is no run", stream=stream.name)
        if not stream.state.terminal:
            raise TransitionError(f"the run is {stream.state}; cancel it first", state=stream.state.value)
        spec = RunSpec.parse(stream.run)
        match = _RETRY.fullmatch(stream.name) if spec.retry_of else None
        name = f"{match['base']}.{int(match['number']) + 1}" if match else f"{stream.name}.2"
        again = msgspec.structs.replace(spec, retry_of=stream.name)
        await self._streams.known(principal, name, Verb.START)
        await self.catalog.find(again)
        return await self._create(principal, again, _Place(name, stream.session, stream.metadata, stream.ttl_seconds))

    async def answer(self, principal: Principal, stream: StreamInfo, question: str, response: msgspec.Raw) -> Appended:
        """Store the answer to a question that the run has asked; whoever answers first is heard.

        Durable when it returns. Raises `NotFoundError` when it asked nothing of that id, `EndedError` when it has ended,
        `AlreadyExistsError` when somebody has answered, `InvalidError` for what the question's schema does not allow (see
        `check_answer`): then the question stays open. Who may not read the run is not told more of its question than that.
        """
        limits = self._streams.limits
        if not 1 <= len(question) <= INPUT_ID_CHARACTERS_MAX:
            raise InvalidError(f"an id has 1 to {INPUT_ID_CHARACTERS_MAX} characters", field="id")
        if len(response) > limits.run_input_bytes_max:
            raise TooLargeError(
                f"an answer has at most {limits.run_input_bytes_max} bytes", limit="run_input_bytes_max"
            )
        if stream.run is None:
            raise NotFoundError(f"{stream.name!r} is no run", stream=stream.name)
        asked = await self._asked(stream, question)
        if stream.state.terminal:
            raise EndedError(state=stream.state.value, head=stream.head)
        kind = RunSpec.parse(stream.run).type
        try:
            await asyncio.to_thread(check_answer, kind, asked, response, limits)
        except InvalidError:
            if principal.may(Verb.READ, stream.name, stream.epoch):
                raise
            # The reason quotes the question.
            raise InvalidError("the answer is not one that the question allows", field="response") from None
        body = {"id": question, "response": response, "by": principal.by}
        message = NewMessage(kind="input", json=msgspec.Raw(msgspec.json.encode(body)))
        options = AppendOptions(producer=Producer(f"answer-{question}", 0, 0), beside_lease=True, by=principal)
        done = await self._streams.append_durably(stream, [message], options)
        if done.duplicate:
            raise _answered(question, stream)
        return done

    async def _asked(self, stream: StreamInfo, question: str) -> msgspec.Raw:
        """The question as it was asked; it is mostly near the end, and only then found without reading everything."""
        summary, _ = await read_summary(self._streams, stream)
        if (found := summary.question(question)) is not None:
            return found
        history, _ = await read_history(self._streams, stream)
        if question not in history.asked:
            raise NotFoundError(f"the run asked nothing of the id {question!r}", stream=stream.name)
        if question in history.answered:
            raise _answered(question, stream)
        return history.asked[question]

    async def summary(self, stream: StreamInfo) -> RunSummary:
        """The run in short; `NotFoundError` for a stream that is no run."""
        if stream.run is None:
            raise NotFoundError(f"{stream.name!r} is no run", stream=stream.name)
        return (await read_summary(self._streams, stream))[1]

    async def view(self, principal: Principal) -> list[SourceView]:
        """What there is to run, by source; nothing for one who may start nothing."""
        if principal.granted(Verb.START) == ():
            return []
        return list(await asyncio.gather(*[source.view() for source in self.catalog.sources]))


def _answered(question: str, stream: StreamInfo) -> AlreadyExistsError:
    return AlreadyExistsError(f"the question {question!r} is answered already", stream=stream.name)
