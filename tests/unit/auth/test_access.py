"""Host and Origin, as tables."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers
from websockets.datastructures import Headers as WireHeaders

from unbroken.auth.access import Access
from unbroken.errors import ConfigurationError, ForbiddenOriginError, InvalidError

SERVER = ("127.0.0.1", 4437)
OPEN = Access()
LISTED = Access(
    allow_origins=frozenset({"https://app.example"}), allow_hosts=frozenset({"chat.example", "other.example:8443"})
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4437",
        "localhost:4437",
        "LocalHost:4437",
        "[::1]:4437",
        "chat.example",
        "chat.example:9000",
        "other.example:8443",
    ],
)
def test_a_host_of_ours_is_let_in(host: str) -> None:
    LISTED.check_host(Headers({"host": host}), SERVER)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost",
        "localhost:4438",
        "localhost.evil.example:4437",
        "127.0.0.1.evil.example:4437",
        "other.example:8444",
        "user@localhost:4437",
        "localhost:4437, evil.example",
        "localhost:4437/path",
        "loc\u00e4lhost:4437",
        "[::2]:4437",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    with pytest.raises(ForbiddenOriginError):
        LISTED.check_host(Headers({"host": host}), SERVER)


def test_a_missing_host_is_refused_and_a_doubled_one_too() -> None:
    with pytest.raises(ForbiddenOriginError):
        OPEN.check_host(Headers({}), SERVER)
    with pytest.raises(InvalidError):
        OPEN.check_host(WireHeaders([("Host", "localhost:4437"), ("Host", "evil.example")]), SERVER)
    raw = [(b"host", b"localhost:4437"), (b"host", b"evil.example")]
    with pytest.raises(InvalidError):
        OPEN.check_host(Headers(raw=raw), SERVER)


def test_without_a_known_port_any_port_of_a_loopback_name_is_ours() -> None:
    OPEN.check_host(Headers({"host": "localhost:1"}))
    OPEN.check_host(Headers({"host": "localhost:1"}), ("/run/socket", None))
    with pytest.raises(ForbiddenOriginError):
        OPEN.check_host(Headers({"host": "evil.example"}))


def test_an_embedded_server_leaves_hosts_to_its_application() -> None:
    embedded = Access(embedded=True)
    embedded.check_host(Headers({"host": "anything.example"}), SERVER)
    own = Headers({"host": "anything.example", "origin": "https://anything.example"})
    embedded.check_origin(own, scheme="http", changes_state=True)
    foreign = Headers({"host": "anything.example", "origin": "https://evil.example"})
    with pytest.raises(ForbiddenOriginError):
        embedded.check_origin(foreign, scheme="https", changes_state=False)


@pytest.mark.parametrize(
    ("origin", "scheme"),
    [
        ("http://localhost:4437", "http"),
        ("http://LOCALHOST:4437", "http"),
        ("http://localhost:4437", "ws"),
        ("http://localhost:4437", None),
        ("https://localhost:4437", "https"),
        ("https://localhost:4437", "wss"),
        ("https://localhost:4437", None),
        ("https://app.example", "http"),
    ],
)
def test_the_own_origin_and_those_on_the_list_are_let_in(origin: str, scheme: str | None) -> None:
    headers = Headers({"host": "localhost:4437", "origin": origin})
    LISTED.check_origin(headers, scheme=scheme, changes_state=True)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "https://localhost:4437",  # another scheme than the request's
        "http://localhost:4438",
        "http://localhost",
        "http://localhost:4437.evil.example",
        "http://evil.example/localhost:4437",
        "http://localhost:4437/",
        "https://app.example.evil.example",
        "http://app.example",
        "https://app.example.",
        "https://app.example:443",
        "https://app.example:8443",
        "https://user@app.example",
        "https://app.example@evil.example",
        "https://app.example/",
        "https://app.example#x",
        "https://app.example?x",
        "https://app.example\t",
        " https://app.example",
        "https://app.example, https://evil.example",
        "https://app.ex\xe4mple",
        "http://localhost:4437.",
        "http://localhost.:4437",
        "http://user@localhost:4437",
        "http://localhost:4437@evil.example",
        "http://127.0.0.1:4437",
        "http://localhost:04437",
        "http://localhost:+4437",
        "//localhost:4437",
        "file://",
    ],
)
@pytest.mark.parametrize("changes_state", [True, False])
def test_any_other_origin_is_refused_also_for_reading(origin: str, changes_state: bool) -> None:
    headers = Headers({"host": "localhost:4437", "origin": origin})
    with pytest.raises(ForbiddenOriginError):
        LISTED.check_origin(headers, scheme="http", changes_state=changes_state)


def test_null_is_refused_even_when_listed() -> None:
    careless = Access(allow_origins=frozenset({"null"}))
    with pytest.raises(ForbiddenOriginError):
        careless.check_origin(Headers({"host": "localhost", "origin": "null"}), scheme="http", changes_state=False)


def test_a_default_port_is_the_same_whether_it_is_written_or_not() -> None:
    headers = Headers({"host": "chat.example:443", "origin": "https://chat.example"})
    LISTED.check_origin(headers, scheme="https", changes_state=True)


@pytest.mark.parametrize(
    ("site", "changes_state", "allowed"),
    [
        (None, True, True),
        ("same-origin", True, True),
        ("none", True, True),
        ("same-site", True, False),
        ("cross-site", True, False),
        ("cross-site", False, True),
    ],
)
def test_a_change_without_origin_needs_a_browser_that_does_not_deny_it(
    site: str | None, changes_state: bool, allowed: bool
) -> None:
    headers = Headers({"host": "localhost"} | ({} if site is None else {"sec-fetch-site": site}))
    if allowed:
        OPEN.check_origin(headers, scheme="http", changes_state=changes_state)
    else:
        with pytest.raises(ForbiddenOriginError):
            OPEN.check_origin(headers, scheme="http", changes_state=changes_state)


def test_an_empty_token_is_a_mistake_and_a_token_is_never_shown() -> None:
    for empty in ("", " "):
        with pytest.raises(ConfigurationError, match="protects nothing"):
            Access(token=empty)
    assert "s3cret" not in repr(Access(token="s3cret"))
