"""The demonstration: a server of its own, streams worth watching, and an unattended proof that they survive."""
