"""The configuration in docs/howto/mcp-tools.md is one, and its tables name what there is."""

from __future__ import annotations

import re

from tests.docs.blocks import blocks
from tests.docs.generate import ROOT
from unbroken.mcp.config import HttpServer, StdioServer, parse_servers
from unbroken.mcp.failures import FailureClass
from unbroken.mcp.options import OPTION_NAMES
from unbroken.runs.history import CONTROL_KINDS
from unbroken.testing import McpFault

MCP = "docs/howto/mcp-tools.md"


def test_the_configuration_is_read() -> None:
    (block,) = [one for one in blocks(MCP) if one.language == "json"]
    program, endpoint = parse_servers(block.text.encode(), {"TICKETS_TOKEN": "t"})
    assert isinstance(program.reach, StdioServer)
    assert isinstance(endpoint.reach, HttpServer)
    assert (endpoint.options.trusted, endpoint.options.idle_seconds) == (True, 300.0)


def test_the_tables_name_every_option_class_and_message() -> None:
    text = (ROOT / MCP).read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-zA-Z_]+)`", text))
    assert set(OPTION_NAMES) <= named
    assert {kind.value for kind in FailureClass} <= named
    assert CONTROL_KINDS - {"checkpoint", "file", "retry", "stderr", "timed_out", "cancelled"} <= named
    assert f"in {len(McpFault) - 1} ways" in text
