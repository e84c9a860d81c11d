"""What docs/howto/secrets.md shows works as it stands: the key, the rules, the flags, an application's own function."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.support.server import ServerProcess
from unbroken import Client, Unbroken
from unbroken.cli.app import execute

pytestmark = pytest.mark.anyio

BLOCKS = {block.key: block.text for block in blocks("docs/howto/secrets.md")}
SHELL = BLOCKS["docs/howto/secrets.md sh 1"]
RULES = BLOCKS["docs/howto/secrets.md toml 1"]
APPLICATION = BLOCKS["docs/howto/secrets.md python 1"]


async def test_the_server_with_a_key_rules_and_an_audit_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.toml").write_text(RULES, encoding="utf-8")
    key, serve = [shlex.split(line)[1:] for line in SHELL.splitlines()]
    assert await asyncio.to_thread(execute, key) == 0
    assert serve[0] == "serve"
    flags = [str(tmp_path / one) if re.search(r"\.\w+$", one) else one for one in serve[1:]]
    server = ServerProcess(tmp_path, arguments=flags)
    async with server, Client(server.url) as client, asyncio.timeout(60):
        await client.create("a")
        await client.append("a", "CUST-12345678 said the old master password")
        assert (await client.read("a")).messages[0].text == "[hidden] said [hidden]"
    assert (tmp_path / "audit.jsonl").read_text(encoding="utf-8")


async def test_an_application_with_a_function_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(APPLICATION, "secrets.md", "exec"), names)
    unbroken = names["unbroken"]
    assert isinstance(unbroken, Unbroken)

    async with unbroken.lifespan():
        await unbroken.start(_said("Alice has the key"), "a")
        assert [one.message.text async for one in unbroken.follow("a")] == ["somebody has the key"]


async def _said(text: str) -> AsyncIterator[str]:
    yield text
