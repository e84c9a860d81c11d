"""The server: faces that carry streams over HTTP, SSE and WebSocket, and what they share."""
