"""An MCP server of the demonstration, over stdio: a slow tool with progress, one that asks, one that fails at first.

`python -m unbroken.demo.mcp_server`, as any MCP host starts it. It needs the extra `unbroken[mcp]`, no network and no keys.
"""

from __future__ import annotations

import asyncio

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult, ToolAnnotations

__all__ = ["ask_me", "flaky", "main", "slow_report"]

NAME = {"type": "object", "properties": {"name": {"type": "string", "description": "Your name"}}, "required": ["name"]}
_failed: set[str] = set()


async def slow_report(ctx: Context, steps: int = 30, seconds: float = 30.0) -> str:
    """Work for a while, and tell of every step."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step} of {steps}")
        await ctx.info(f"step {step} is done")
        await asyncio.sleep(seconds / steps)
    return f"All {steps} steps are done."


async def ask_me(ctx: Context) -> str | InputRequiredResult:
    """Ask for a name, and greet."""
    answer = (ctx.input_responses or {}).get("name")
    if not isinstance(answer, ElicitResult):
        params = ElicitRequestFormParams(message="What is your name?", requested_schema=NAME)
        return InputRequiredResult(input_requests={"name": ElicitRequest(params=params)})
    return f"Hello, {(answer.content or {}).get('name', 'whoever you are')}."


async def flaky(name: str = "once") -> str:
    """Fail the first time that it is called with a name, and work from then on."""
    if name not in _failed:
        _failed.add(name)
        raise RuntimeError("not this time")
    return "It works."


def main() -> None:
    """Serve until stdin ends."""
    server = MCPServer("unbroken-demo")
    repeatable = ToolAnnotations(read_only_hint=True, idempotent_hint=True)
    server.tool(annotations=repeatable)(slow_report)
    server.tool()(ask_me)
    server.tool()(flaky)
    server.run("stdio")


if __name__ == "__main__":
    main()
