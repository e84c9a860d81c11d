"""Signed checkpoints of streams, kept outside the database: what shows that a log was cut off or written anew."""
