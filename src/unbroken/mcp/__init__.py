"""MCP tool calls as runs: configuration, guarded transports, and the source that offers a server's tools.

It is above `runs` and knows no face; the composition root builds a source for each configured server. The official SDK is an
extra (`unbroken[mcp]`) and takes a second to import: it is imported when the first call is made, never before.
"""
