"""The files that name MCP servers: what people already have is read, what is wrong is named, and no value is ever shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unbroken.errors import ConfigurationError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.mcp.config import HttpServer, ServerConfig, StdioServer, load_servers, parse_servers
from unbroken.mcp.options import Options, parse_options, seconds_of
from unbroken.mcp.redaction import Redaction

ENVIRONMENT = {"TOKEN": "planted-secret", "HOST": "example.org", "EMPTY": ""}


def parse(entry: Any, **more: Any) -> ServerConfig:
    (found,) = parse_servers(json.dumps({"mcpServers": {"one": entry}, **more}).encode(), ENVIRONMENT)
    return found


def refused(entry: Any, **more: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(entry, **more)
    assert "planted" not in caught.value.message
    return caught.value.message


def test_a_program_is_read_with_its_variables_expanded() -> None:
    found = parse(
        {
            "command": "${SHELL:-python}",
            "args": ["-m", "server", "--token=${TOKEN}", "${EMPTY:-none}", "$HOME"],
            "env": {"KEY": "${TOKEN}", "PLAIN": "x"},
            "cwd": "/srv",
        }
    )
    assert found.reach == StdioServer(
        command="python",
        args=("-m", "server", "--token=planted-secret", "none", "$HOME"),
        env={"KEY": "planted-secret", "PLAIN": "x"},
        cwd="/srv",
    )
    assert found.options == Options()
    assert "planted" not in repr(found)


@pytest.mark.parametrize("kind", [{}, {"type": "http"}, {"type": "streamable-http"}, {"transport": "http"}])
def test_an_endpoint_is_read_with_its_headers(kind: dict[str, str]) -> None:
    entry = {**kind, "url": "https://${HOST}/mcp", "headers": {"Authorization": "Bearer ${env:TOKEN}"}}
    found = parse(entry)
    assert found.reach == HttpServer(url="https://example.org/mcp", headers={"Authorization": "Bearer planted-secret"})
    assert isinstance(found.reach, HttpServer)
    assert found.reach.origin == ("https", "example.org", 443)
    assert "planted" not in repr(found)


def test_a_headers_helper_is_a_line_for_the_shell_or_a_command() -> None:
    line = parse({"url": "http://x", "headersHelper": "get-token --for ${HOST}"}).reach
    assert isinstance(line, HttpServer)
    assert line.helper == ("/bin/sh", "-c", "get-token --for example.org")
    command = parse({"url": "http://x", "headersHelper": ["get-token", "${TOKEN}"]})
    assert isinstance(command.reach, HttpServer)
    assert command.reach.helper == ("get-token", "planted-secret")
    assert "planted" not in repr(command)


def test_the_form_of_vs_code_is_read_and_an_input_without_a_value_refused() -> None:
    document = {
        "inputs": [{"id": "region", "type": "pickString", "default": "eu"}, {"id": "key", "type": "promptString"}],
        "servers": {"one": {"type": "stdio", "command": "x", "args": ["${input:region}", "${input:key}"]}},
    }
    text = json.dumps(document).encode()
    with pytest.raises(ConfigurationError, match=r"'one': args\[1\] asks for the input 'key', which has no value"):
        parse_servers(text, {})
    (found,) = parse_servers(text, {}, inputs={"key": "k-value"})
    assert found.reach == StdioServer(command="x", args=("eu", "k-value"))
    assert "k-value" in found.secrets


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"command": "${NOPE}"}, "'one': command names the variable NOPE, which is not set"),
        ({"command": "x", "env": {"A": "${NOPE}"}}, "'one': env.A names the variable NOPE, which is not set"),
        ({"url": "http://x/", "headers": {"A": "${NOPE}"}}, "headers.A names the variable NOPE"),
        ({"command": "x", "args": ["${planted value}"]}, "'one': args[0] has a variable that is not of the form"),
        ({"command": "x", "args": "planted"}, "'one': args is a list of texts"),
        ({"command": "x", "args": [1]}, "'one': args[0] is text"),
        ({"command": "x", "env": []}, "'one': env is an object of texts"),
        ({"command": ""}, "'one': command is empty"),
        ({"command": "a\0b"}, "no zero bytes"),
        ({}, "'one': url is missing"),
        ({"type": "stdio"}, "'one': command is missing"),
        ({"type": "sse", "url": "http://x/"}, "the old transport sse is not spoken here"),
        ({"type": "carrier pigeon"}, "type is stdio, http or streamable-http"),
        ({"type": "http", "url": "http://x/", "command": "y"}, "command does not go with url"),
        ({"command": "x", "url": "http://y/"}, "url does not go with command"),
        ({"url": "ftp://${TOKEN}/"}, "url is an http or https URL"),
        ({"url": "http://[planted"}, "url is an http or https URL"),
        ({"url": "http://x:99999999/planted"}, "url is an http or https URL"),
        ({"url": "http://x/", "headers": {"A": "planted\r\nB: c"}}, "headers holds one that HTTP does not allow"),
        ("planted", "'one' is an object"),
        ({"command": "x", "unbroken": {"trusted": "yes"}}, "'one': unbroken.trusted is true or false"),
        ({"command": "x", "unbroken": {"retries": 3}}, "'one': unbroken.retries is no option; there are"),
        ({"command": "x", "unbroken": {"retry": "often"}}, "unbroken.retry is one of ask, always, never"),
        ({"command": "x", "unbroken": {"max_processes": 0}}, "max_processes is a whole number from 1 to"),
        ({"command": "x", "unbroken": {"shared": True}}, "shared is a whole number from 1 to"),
        ({"url": "http://x", "headersHelper": []}, "'one': headersHelper is a command"),
        ({"url": "http://x", "headersHelper": {"a": 1}}, "'one': headersHelper is a list of texts"),
        ({"command": "x", "headersHelper": "y"}, "'one': headersHelper does not go with command"),
        ({"command": "x", "unbroken": {"public": "HOME"}}, "unbroken.public is a list of names"),
        ({"command": "x", "unbroken": {"outputFromProgress": [1]}}, "outputFromProgress is a list of names"),
        ({"command": "x", "unbroken": {"idle_timeout": "soon"}}, "idle_timeout is a duration like"),
        ({"command": "x", "unbroken": {"total_timeout": 0}}, "total_timeout is a duration like"),
        ({"command": "x", "unbroken": []}, '"unbroken" is an object'),
    ],
)
def test_what_is_wrong_is_named_and_no_value_shown(entry: Any, complaint: str) -> None:
    assert complaint in refused(entry)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"mcpServers": 1}', b"{not json", b"[" * 100_000])
def test_a_file_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigurationError):
        parse_servers(text, {})


@pytest.mark.parametrize("name", ["", " x", "a/b", "x" * 101, "ä"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="the name of an MCP server"):
        parse_servers(json.dumps({"mcpServers": {name: {"command": "x"}}}).encode(), {})


def test_a_file_is_bounded_and_named(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_servers(path, {})
    path.write_bytes(b" " * (DEFAULT_LIMITS.mcp_config_bytes_max + 1))
    with pytest.raises(ConfigurationError, match="has more than"):
        load_servers(path, {})
    path.write_text('{"mcpServers": {"a": {"command": "${NOPE}"}}}')
    with pytest.raises(ConfigurationError, match=r"mcp\.json: MCP server 'a': command names the variable NOPE"):
        load_servers(path, {})
    path.write_text('{"mcpServers": {"a": {"command": "x"}, "b": {"url": "http://y/"}}, "other": 1}')
    assert [found.name for found in load_servers(path, {})] == ["a", "b"]
    many = {str(number): {"command": "x"} for number in range(DEFAULT_LIMITS.mcp_servers_max + 1)}
    path.write_text(json.dumps({"mcpServers": many}))
    with pytest.raises(ConfigurationError, match="at most"):
        load_servers(path, {})


def test_options_are_read() -> None:
    given = {
        "trusted": True,
        "retry": "never",
        "session": "server",
        "max_processes": 2,
        "max_calls": 9,
        "shared": 3,
        "idle_timeout": "2m",
        "total_timeout": "1h",
        "connect_timeout": 5,
        "start_timeout": "1500ms",
        "outputFromProgress": ["talk"],
        "public": ["HOME"],
    }
    assert parse_options("s", given) == Options(
        trusted=True,
        retry="never",
        session="server",
        max_processes=2,
        max_calls=9,
        shared=3,
        idle_seconds=120.0,
        total_seconds=3600.0,
        connect_seconds=5.0,
        start_seconds=1.5,
        output_from_progress=frozenset({"talk"}),
        public=frozenset({"HOME"}),
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(3, 3.0), ("3", 3.0), ("1.5 s", 1.5), ("1d", 86400.0), (True, None), ("x", None), (None, None)],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(value: object, seconds: float | None) -> None:
    assert seconds_of(value) == seconds


def test_everything_given_in_confidence_is_taken_out_of_error_texts() -> None:
    config = parse(
        {"url": "https://user:planted-password@x/mcp?key=planted-key", "headers": {"A": "Bearer ${TOKEN}", "B": "true"}}
    )
    redact = Redaction(config)
    told = redact("planted-password, planted-key and planted-secret; Bearer is true")
    assert told == "[hidden], [hidden] and [hidden]; Bearer is true"
    program = parse({"command": "x", "args": ["--token", "${TOKEN}"], "env": {"E": "planted-env"}})
    assert Redaction(program)("planted-secret planted-env") == "[hidden] [hidden]"


def test_a_beginning_of_a_secret_is_known_and_what_is_public_is_none() -> None:
    env = {"E": "planted-env", "F": "planted-env-too", "SHOWN": "some/path"}
    redact = Redaction(parse({"command": "x", "env": env, "unbroken": {"public": ["SHOWN"]}}))
    assert redact("some/path planted-env planted-env-too") == "some/path [hidden] [hidden]"
    assert [redact.unfinished(text) for text in ("", "x", "plan", "xp", "planted-envy", "planted-env-")] == [
        0,
        0,
        4,
        1,
        0,
        12,
    ]


def test_a_schema_keeps_the_names_that_must_be_met() -> None:
    redact = Redaction(parse({"command": "x", "env": {"E": "planted"}}))
    given = {"properties": {"planted": {"enum": ["planted"], "description": "a planted one"}}, "required": ["planted"]}
    described = {"enum": ["planted"], "description": "a [hidden] one"}
    assert redact.schema(given) == {"properties": {"planted": described}, "required": ["planted"]}


def test_secrets_that_are_learned_are_hidden_and_the_oldest_of_many_forgotten() -> None:
    redact = Redaction(parse({"command": "x", "env": {"E": "planted-env"}}))
    for number in range(100):
        redact.learn_headers({"Authorization": f"Bearer planted-{number:03}"})
    assert redact("planted-env planted-099") == "[hidden] [hidden]"
    assert redact("planted-000") == "planted-000"
    assert redact.value({"planted-099": ["planted-099", 1, None]}) == {"[hidden]": ["[hidden]", 1, None]}


@pytest.mark.scenario("TC-EDGE-015")
@pytest.mark.parametrize(
    "args",
    [
        ["--api-key", "planted-secret"],
        ["--apiKey=planted-secret"],
        ["-e", "GITHUB_TOKEN=planted-secret"],
        ["--header", "Authorization: Bearer planted-secret"],
        ["--header=Authorization:Bearer planted-secret"],
        ["--password", "-planted-secret"],
        ["--auth", "user planted-secret"],
        ["postgresql://somebody:planted%2Dsecret@example.org/database"],
        ["--url=https://example.org/mcp?access_token=planted-secret"],
    ],
)
def test_what_an_argument_holds_in_confidence_is_taken_out(args: list[str]) -> None:
    redact = Redaction(parse({"command": "x", "args": ["-m", "server", "--verbose", *args]}))
    assert redact("-planted-secret").endswith("[hidden]")
    assert redact("server and database of example.org") == "server and database of example.org"


def test_arguments_of_other_names_and_public_ones_are_shown() -> None:
    args = [
        "--author",
        "somebody",
        "--max-tokens",
        "100000",
        "--keyboard=qwertz",
        "--key-file",
        "some/path",
        "--auth",
        "--verbose",
    ]
    entry = {"command": "x", "args": args, "unbroken": {"public": ["--key-file"]}}
    shown = "somebody 100000 qwertz some/path --verbose"
    assert Redaction(parse(entry))(shown) == shown


def test_a_secret_of_digits_is_hidden_as_a_number_where_any_value_may_stand() -> None:
    redact = Redaction(parse({"command": "x", "env": {"PIN": "48291034", "ZEROS": "0000001", "FLAG": "True"}}))
    given = {
        "pin": 48291034,
        "list": [48291034.0, -48291034, 482910340, 1, True, 4.5, float("inf")],
        "text": "48291034",
    }
    assert redact.value(given, numbers=True) == {
        "pin": "[hidden]",
        "list": ["[hidden]", "[hidden]", 482910340, 1, True, 4.5, float("inf")],
        "text": "[hidden]",
    }
    assert redact.value({"progress": 48291034}) == {"progress": 48291034}
    redact.learn_headers({"X-Pin": "11223344"})
    assert redact.value([11223344], numbers=True) == ["[hidden]"]
