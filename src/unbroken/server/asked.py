"""What a peer asks of runs in frames: the same desk as over HTTP.

A connection calls it and sends what it gives. It keeps nothing.
"""

from __future__ import annotations

from unbroken.identity import Principal, Verb
from unbroken.protocol.frames import AnswerFrame, Result, RetryFrame, StartFrame
from unbroken.protocol.views import answer_view
from unbroken.runs.desk import RunDesk
from unbroken.runs.spec import RunRequest
from unbroken.server.resource import decode
from unbroken.streams import Streams

__all__ = ["run_result"]


async def run_result(
    desk: RunDesk, streams: Streams, principal: Principal, frame: StartFrame | RetryFrame | AnswerFrame
) -> Result:
    """The answer to a frame about a run; raises what the desk does, and `InvalidError` for a start that is none."""
    if isinstance(frame, StartFrame):
        created = await desk.start(principal, decode(bytes(frame.run), RunRequest))
        return Result(id=frame.id, stream=answer_view(created.stream, principal), created=created.created)
    stream = await streams.get(principal, frame.stream, may=Verb.START)
    if isinstance(frame, RetryFrame):
        created = await desk.retry(principal, stream)
        return Result(id=frame.id, stream=answer_view(created.stream, principal), created=created.created)
    await desk.answer(principal, stream, frame.question, frame.response)
    return Result(id=frame.id, stream=answer_view(stream, principal))
