"""On a real terminal: whatever is stored, nothing that the command line prints controls it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
from urllib.parse import quote

import httpx2
import pytest

from tests.support.commands import SECONDS_MAX, Commands
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200f\u2028\u2029\u202a-\u202e\u2066-\u206f]")
COLOUR = re.compile(r"\x1b\[[0-9;]+m")
SEQUENCES = (
    "\x1b]0;a title\x07",
    "\x1b]52;c;Y2FuYXJ5\x07",
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H\x1b[?1049h\x1b[6n",
    "\x1bP+q544e\x1b\\\x1b_x\x1b\\\x1b^x\x1b\\\x1bXx\x1b\\",
    "\x9b31mx\x9d0;title\x9c\x90q\x9c\x84\x85\x8d",
    "\x1bc\x1b(0\x1b#8\x1b7\x0e\x0f\x05\x07\x08\x7f",
    "invoice\u202efdp.exe\u2066x\u2069 \u200f1 > 2",
    "\x1b[8mhidden\x1b[31mred\x1b[0m",
    "日本\x1b[1G語\u200d👩\x9b1A\u0600",
)
NAME = "a\u202eb \u2066<c>"


async def on_terminal(commands: Commands, *arguments: str) -> str:
    """What a terminal is sent by one command: both of its outputs."""
    master, slave = pty.openpty()
    received = bytearray()
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def read() -> None:
        try:
            received.extend(os.read(master, 65_536))
        except OSError:  # the last holder of the other side has gone
            loop.remove_reader(master)
            over.set()

    try:
        process = await commands.start(*arguments, stdin=slave, stdout=slave, stderr=slave)
        loop.add_reader(master, read)
        os.close(slave)
        async with asyncio.timeout(SECONDS_MAX):
            await process.wait()
            await over.wait()
    finally:
        loop.remove_reader(master)
        os.close(master)
    return received.decode()


async def test_nothing_stored_controls_the_terminal(server: ServerProcess, commands: Commands) -> None:
    pieces = [
        piece
        for text in SEQUENCES
        for cut in range(1, len(text) + 1)
        for piece in (text[:cut], text[cut:], ".\n")
        if piece
    ]
    async with httpx2.AsyncClient(base_url=f"{server.url}/v1/", timeout=60, trust_env=False) as http:
        hostile = "".join(SEQUENCES)
        body = {"metadata": {"title": hostile}, "session": NAME}
        (await http.put(f"streams/{quote(NAME)}", json=body)).raise_for_status()
        texts = [{"text": piece} for piece in pieces]
        values = [{"kind": "status", "json": {text: text}} for text in SEQUENCES]
        for messages in (texts, values):
            (await http.post(f"messages/{quote(NAME)}", json={"messages": messages})).raise_for_status()
        reason = {"state": "failed", "reason": {"error": hostile}}
        (await http.post(f"close/{quote(NAME)}", json=reason)).raise_for_status()
    for arguments in (
        ["tail", NAME],
        ["tail", NAME, "--json"],
        ["tail", NAME, "--colours"],
        ["ls"],
        ["ls", "--json"],
        ["show", NAME],
        ["show", f"{NAME}\u202e none"],
    ):
        sent = await on_terminal(commands, *arguments)
        coloured = "--colours" in arguments or arguments[0] in {"ls", "show"}  # the states are, by ourselves
        shown = COLOUR.sub("", sent) if coloured else sent
        assert CONTROLS.search(shown) is None, (arguments, shown[:500])
        assert len(shown) > 10, arguments
    raw = await on_terminal(commands, "tail", NAME, "--raw", "--kind", "message")
    assert "\x1b]52;c;Y2FuYXJ5\x07" in raw, "bytes are for whom asks for bytes"
