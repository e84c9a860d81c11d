"""Tasks that the tests of the page start: every kind of field, of progress and of end, and hostile words everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from unbroken import RunContext, task

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\x1b[31m[x](javascript:alert(3))\x1b[0m"

SPITE = f"{HOSTILE} {{{{7*7}}}} ${{alert(4)}} invoice\u202efdp.exe \u2066x\u2069 <svg onload=alert(5)>"


@task
async def survey(
    name: str,
    count: int,
    size: Literal["small", "large"] = "small",
    share: float = 0.5,
    loud: bool = False,
    tags: list[str] | None = None,
) -> dict[str, object]:
    """Give back what was filled in."""
    return {"name": name, "count": count, "size": size, "share": share, "loud": loud, "tags": tags}


@task
async def unmeasured(run: RunContext, upto: int, pause: float = 0.05) -> AsyncIterator[str]:
    """Tell of progress without saying how much there is."""
    for number in range(1, upto + 1):
        await run.progress(number, message=f"page {number}")
        await run.log(f"line {number}", "warning" if number % 3 == 0 else "info")
        yield f"{number}\n"
        await asyncio.sleep(pause)


@task
async def large(characters: int) -> str:
    """Give a result of any size."""
    return "y" * characters


@task
async def hostile(run: RunContext, words: str = HOSTILE) -> str:
    """Say hostile words in every place where a run says something."""
    await run.progress(1, 2, words)
    await run.log(words, "error")
    schema = {
        "type": "object",
        "title": words,
        "properties": {
            words: {"type": "string", "description": words, "default": words, "title": words},
            "pick": {"enum": [words, "plain"], "description": words},
        },
        "required": ["pick"],
    }
    return f"{words} {await run.ask({'message': words, 'schema': schema})}"


@task
async def spiteful(run: RunContext, words: str = SPITE) -> str:
    """<img src=x onerror=alert(1)> \u202etxt {{7*7}} [x](javascript:alert(1))"""
    await run.progress(1, 2, words)
    for level in ("info", "error"):
        await run.log(words, level)
    await run.put_text("stderr", words)
    await run.file(b"<script>alert(1)</script>", "<img src=x onerror=alert(1)>.html", "text/html")
    field = {"type": "string", "title": words, "description": words, "default": words, "enumNames": [words]}
    names = ("constructor", "__proto__", "toString", "querySelector", "submit", "action", "innerHTML", words)
    fields = {
        **dict.fromkeys(names, field),
        "pick": {"enum": [words, "plain"], "enumNames": [words], "description": words},
    }
    await run.ask({"message": words, "schema": {"type": "object", "title": words, "properties": fields}})
    raise ValueError(words)


@task
async def invitation(run: RunContext) -> str:
    """Ask for what a form cannot check by itself."""
    fields = {"guests": {"type": "integer", "minimum": 2}, "code": {"type": "string", "pattern": "^[A-Z]{3}$"}}
    schema = {"type": "object", "properties": fields, "required": ["guests"]}
    return f"{await run.ask({'message': 'Who comes?', 'schema': schema})}"


@task
async def talkative(run: RunContext, words: int) -> AsyncIterator[str]:
    """Tell of progress once, and say very much after that."""
    await run.progress(3, 10, "three of ten")
    await run.checkpoint("begun")
    for number in range(words):
        yield f"w{number} "
    await asyncio.Event().wait()
