"""A server of the old SDK, run by its own Python: `server.py stdio|http PORT`. It imports nothing of ours."""

import asyncio
import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import ToolAnnotations


def build(port: int) -> FastMCP:
    server = FastMCP("old", host="127.0.0.1", port=port, log_level="WARNING")

    @server.tool(annotations=ToolAnnotations(readOnlyHint=True))
    async def slow(ctx: Context, steps: int = 5) -> str:
        """Counts."""
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step}")
            await ctx.info(f"logged {step}")
            await asyncio.sleep(0.05)
        return f"{steps} steps"

    return server


if __name__ == "__main__":
    how = sys.argv[1]
    build(int(sys.argv[2]) if how == "http" else 0).run("stdio" if how == "stdio" else "streamable-http")
