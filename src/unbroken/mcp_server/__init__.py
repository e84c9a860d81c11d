"""Unbroken as an MCP server: an agent starts long work here, and the work survives the agent.

`unbroken mcp` serves it over stdio or HTTP. It is a client of a running `unbroken serve` and holds nothing of its own: this
process, and the agent, may die at any moment, and no run ends or loses a message by that.
"""
