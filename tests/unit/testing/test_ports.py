"""The ports that are given to servers under test."""

from __future__ import annotations

import errno
import socket

import pytest

from unbroken.testing import ports

FIRST_THAT_CLIENTS_GET = 32_768  # Linux's; those of macOS and Windows lie above


def test_it_is_none_that_an_outgoing_connection_could_get() -> None:
    assert all(1_024 < ports.free_port() < FIRST_THAT_CLIENTS_GET for _ in range(200))


def test_a_port_with_a_listener_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = ports.free_port(), ports.free_port()
    assert taken != free
    monkeypatch.setattr(ports, "_PORTS", [taken, free])
    with socket.create_server(("127.0.0.1", taken)):
        assert {ports.free_port() for _ in range(50)} == {free}


def test_when_all_are_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = ports.free_port()
    monkeypatch.setattr(ports, "_PORTS", range(taken, taken + 1))
    with (
        socket.create_server(("127.0.0.1", taken)),
        pytest.raises(OSError, match=rf"no port from {taken} to {taken}") as info,
    ):
        ports.free_port()
    assert info.value.errno == errno.EADDRINUSE
