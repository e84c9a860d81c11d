"""What is decided about a call without any input or output: recovery, questions, challenges, tools, results."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from unbroken.limits import DEFAULT_LIMITS
from unbroken.mcp.config import HttpServer, ServerConfig
from unbroken.mcp.failures import Failure, FailureClass
from unbroken.mcp.guard import parse_challenge, proxy_for
from unbroken.mcp.options import Options
from unbroken.mcp.process import child_environment
from unbroken.mcp.questions import answer_of, identity, question_of, round_of, saved_round
from unbroken.mcp.recovery import recovery_of, saved_task
from unbroken.mcp.redaction import Redaction
from unbroken.mcp.results import fits_schema
from unbroken.mcp.tools import Tool, tools_of
from unbroken.messages import NewMessage
from unbroken.runs.history import History

FORM = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object"}}}
NOTHING_HIDDEN = Redaction(ServerConfig(name="s", reach=HttpServer(url="http://127.0.0.1/")))


def history(*messages: tuple[str, dict[str, Any]]) -> History:
    found = History()
    for kind, body in messages:
        found.take(NewMessage(kind=kind, json=msgspec.Raw(msgspec.json.encode(body))))
    return found


def started(attempt: int = 1) -> tuple[str, dict[str, Any]]:
    return "started", {"attempt": attempt}


def sent(attempt: int = 1, *, repeatable: bool = False) -> tuple[str, dict[str, Any]]:
    return "sent", {"attempt": attempt, "repeatable": repeatable}


def asked(after: int) -> tuple[str, dict[str, Any]]:
    return "input_required", {"id": f"sent-{after}-1", "round": {"sent": after, "requests": {"q": FORM}, "state": "s"}}


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize(
    ("messages", "resume", "may_have_run"),
    [
        pytest.param([], True, False, id="accepted only"),
        pytest.param([started()], True, False, id="started"),
        pytest.param([started(), sent()], False, True, id="sent"),
        pytest.param([started(), sent(repeatable=True)], True, True, id="sent, repeatable"),
        pytest.param([started(), sent(), started(2)], True, False, id="a later execution has not sent"),
        pytest.param([started(), sent(), started(2), sent(2)], False, True, id="sent twice"),
        pytest.param([started(), sent(), ("task", {"taskId": "t"})], True, False, id="a task"),
        pytest.param([started(), sent(), asked(1)], True, False, id="an open question"),
        pytest.param(
            [started(), sent(), asked(1), ("input", {"id": "sent-1-1"})], True, False, id="answered, not sent"
        ),
        pytest.param([started(), sent(), asked(1), sent()], False, True, id="answered and sent"),
        pytest.param(
            [started(), sent(), ("input_required", {"id": "elicit-1"})],
            False,
            True,
            id="a question of the old protocol",
        ),
    ],
)
def test_after_a_crash_a_call_goes_on_where_that_is_safe(
    messages: list[tuple[str, dict[str, Any]]], resume: bool, may_have_run: bool
) -> None:
    recovery = recovery_of(history(*messages))
    assert (recovery.resume, recovery.may_have_run) == (resume, may_have_run)


def test_a_saved_task_is_what_its_message_says() -> None:
    body = {"attempt": 1, "taskId": "t", "status": "working", "pollIntervalMs": 50.0, "ttlMs": None}
    found = saved_task(history(("task", body)))
    assert found is not None
    assert (found.task_id, found.poll_interval_ms, found.ttl_ms) == ("t", 50.0, None)
    assert saved_task(history()) is None


def test_a_round_is_saved_with_its_first_question_and_found_again() -> None:
    begun = round_of(
        {"inputRequests": {"a": FORM, "b": FORM}, "requestState": "opaque"}, 3, DEFAULT_LIMITS, NOTHING_HIDDEN
    )
    assert begun.ids() == {"a": "sent-3-1", "b": "sent-3-2"}
    stored = {"id": "sent-3-1", "message": "who?", "round": begun.stored(NOTHING_HIDDEN)}
    messages = [started(), sent(), sent(), sent(), ("input_required", stored)]
    assert saved_round(history(*messages)) == begun
    assert saved_round(history(*messages, sent())) is None, "it was answered, and sent"


@pytest.mark.parametrize(
    "result",
    [
        {"inputRequests": {"a": {"method": "sampling/createMessage", "params": {}}}},
        {"inputRequests": {"a": {"method": "roots/list"}}},
        {"inputRequests": {str(number): FORM for number in range(DEFAULT_LIMITS.mcp_input_requests_max + 1)}},
        {"requestState": "x" * (DEFAULT_LIMITS.run_checkpoint_bytes_max + 1)},
    ],
    ids=["sampling", "roots", "too many", "too large"],
)
def test_questions_that_cannot_be_asked_are_a_bad_response(result: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        round_of(result, 1, DEFAULT_LIMITS, NOTHING_HIDDEN)
    assert caught.value.kind is FailureClass.BAD_RESPONSE


def test_a_page_to_visit_is_asked_with_its_address() -> None:
    request = {"method": "elicitation/create", "params": {"mode": "url", "message": "pay", "url": "https://x/"}}
    assert question_of(request) == {"message": "pay", "url": "https://x/"}
    assert answer_of(request, {"done": True}) == {"action": "accept"}
    assert answer_of(request, False) == {"action": "decline"}


@pytest.mark.parametrize(
    ("response", "result"),
    [
        ({"name": "Ada", "tags": ["a", 1], "n": {"x": 1}}, {"name": "Ada", "tags": ["a", "1"], "n": '{"x":1}'}),
        ("Ada", {"value": "Ada"}),
        ({"action": "buy"}, {"action": "buy"}),
        ({}, {}),
    ],
)
def test_an_answer_is_content_of_plain_values(response: object, result: dict[str, object]) -> None:
    assert answer_of(FORM, response) == {"action": "accept", "content": result}


def test_the_same_question_of_the_old_protocol_has_the_same_id() -> None:
    params = {"message": "a", "requestedSchema": {"type": "object"}}
    assert identity(params, 1) == identity(dict(reversed(params.items())), 1) != identity(params, 2)
    assert identity(params, 1) != identity({**params, "message": "b"}, 1)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", {}),
        ("=nonsense", {}),
        ("Bearer", {"scheme": "Bearer"}),
        (
            'Bearer realm="a \\"b", error=invalid_token, token="planted", scope="x y"',
            {"scheme": "Bearer", "realm": 'a \\"b', "error": "invalid_token", "scope": "x y"},
        ),
        (f'Bearer realm="{"x" * 5000}"', {"scheme": "Bearer", "realm": "x" * 500}),
    ],
)
def test_of_a_challenge_only_what_is_wanted_is_told(header: str, found: dict[str, str]) -> None:
    assert parse_challenge(header) == found


@pytest.mark.parametrize(
    ("options", "hints", "repeatable"),
    [
        (Options(), {"readOnlyHint": True, "idempotentHint": True}, False),
        (Options(trusted=True), {"readOnlyHint": True}, True),
        (Options(trusted=True), {"idempotentHint": True}, True),
        (Options(trusted=True), {"destructiveHint": False}, False),
        (Options(trusted=True, retry="never"), {"readOnlyHint": True}, False),
        (Options(retry="always"), {}, True),
    ],
)
def test_hints_count_only_where_the_server_is_trusted(
    options: Options, hints: dict[str, bool], repeatable: bool
) -> None:
    assert Tool(name="t", hints=hints).repeatable(options) is repeatable


def test_tools_are_cut_and_the_first_of_a_name_counts() -> None:
    listed: list[dict[str, Any]] = [
        {"name": "a", "title": "x" * 999, "description": "y" * 9_999, "inputSchema": {"type": "object"}},
        {"name": "a", "title": "second"},
        {"name": "", "title": "none"},
        {"name": "b", "inputSchema": {"x": "z" * 100_000}, "annotations": {"title": "B", "readOnlyHint": "yes"}},
        {"name": "c", "inputSchema": {"properties": {"p": {"x-mcp-header": "P"}}}},
    ]
    found = tools_of(listed)
    assert list(found) == ["a", "b", "c"]
    assert (len(found["a"].title), len(found["a"].description)) == (200, 4_000)
    assert (found["b"].title, found["b"].input_schema, found["b"].hints) == ("B", b'{"type":"object"}', {})
    assert (found["a"].headers, found["c"].headers) == (False, True)


@pytest.mark.parametrize(
    ("schema", "result", "fits"),
    [
        (None, {"structuredContent": {}}, None),
        ({"type": "object"}, {"structuredContent": {}}, True),
        ({"type": "object", "required": ["a"]}, {"structuredContent": {}}, False),
        ({"type": "object"}, {"content": []}, False),
        ({"type": "object"}, {"isError": True}, None),
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, {"structuredContent": {"a": "a" * 40 + "b"}}, None),
        ({"$ref": "https://example.org/schema"}, {"structuredContent": {}}, None),
        ({"type": "no such type"}, {"structuredContent": {}}, None),
    ],
)
def test_a_result_is_only_annotated_with_whether_it_fits(
    schema: Any, result: dict[str, Any], fits: bool | None
) -> None:
    assert fits_schema(Tool(name="t", hints={}, output_schema=schema), result) is fits


def test_a_child_inherits_a_few_names_only() -> None:
    own = {"PATH": "/bin", "HOME": "() { evil; }", "AWS_SECRET": "planted", "USER": "me"}
    assert child_environment({"KEY": "k", "USER": "other"}, own) == {"PATH": "/bin", "USER": "other", "KEY": "k"}


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://far.example/mcp", "http://proxy:1"),
        ("http://far.example/mcp", None),
        ("https://near.example/mcp", None),
        ("https://127.0.0.1:8000/mcp", None),
        ("https://localhost/mcp", None),
    ],
)
def test_the_proxy_of_the_environment_is_used_for_other_machines(
    url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "near.example")
    assert proxy_for(HttpServer(url=url)) == proxy
