"""The wire protocol without I/O: frames, their encoding, and the rules of both ends of a connection."""
