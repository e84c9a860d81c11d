"""A chat whose answers survive the reload, the lost network, the crash of the browser and the restart of the server.

Run it with `uvicorn examples.fastapi_chat:app`, open http://127.0.0.1:8000/, ask, and reload while it answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, StreamingResponse

from unbroken import Unbroken

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "0.1"))

unbroken = Unbroken(os.environ.get("UNBROKEN_STORE", "sqlite:///chat.db"))
app = FastAPI()
app.include_router(unbroken.router, prefix="/streams")


async def answer(question: str) -> AsyncIterator[str]:
    """What a language model would stream."""
    for word in f"You asked: {question} That is a good question, and here are a hundred numbers.".split():
        yield f"{word} "
        await asyncio.sleep(PAUSE_SECONDS)
    for number in range(1, 101):
        yield f"{number} "
        await asyncio.sleep(PAUSE_SECONDS)


@app.post("/chat/{key}")
async def ask(key: str, question: str) -> dict[str, str]:
    """Begin the answer, or find that it has begun: a repeated request starts nothing twice."""
    stream = await unbroken.start(answer(question), f"chat/{key}")
    return {"stream": stream.name, "state": stream.state}


@app.get("/chat/{key}")
async def text(key: str, question: str) -> StreamingResponse:
    """The same as one plain text response, for clients that know nothing of streams."""
    return await unbroken.respond(answer(question), f"chat/{key}")


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))
