"""What is recognised as a secret by its shape, and what is not: the words and code of honest streams."""

from __future__ import annotations

import pytest

from unbroken.redaction.shapes import CREDENTIALS, LOGGED, PAIRS, hide

SOME = "a1B2" * 12
"""No secret of anybody: each test puts a prefix in front of it."""

FOUND = {
    "unbroken": f"ubk_{SOME}",
    "unbroken link": f"https://chat.example/#ubl_{SOME}",
    "bearer": f"Bearer {SOME}",
    "authorization": f"authorization: Basic {SOME}",
    "authorization in JSON": f"'Authorization': '{SOME}'",
    "jwt": f"eyJ{SOME}.eyJ{SOME}.{SOME}",
    "openai": f"sk-proj-{SOME}",
    "stripe": f"sk_live_{SOME}",
    "github": f"ghp_{SOME}",
    "github fine": f"github_pat_{SOME}",
    "gitlab": f"glpat-{SOME}",
    "aws": "AKIA" + "A1B2" * 4,
    "google": "AIza" + SOME[:35],
    "slack": f"xoxb-{SOME}",
    "huggingface": f"hf_{SOME}",
    "npm": f"npm_{SOME}",
    "pypi": f"pypi-{SOME}",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{SOME}\n{SOME}\n-----END RSA PRIVATE KEY-----",
    "private key without its end": f"-----BEGIN PRIVATE KEY-----\n{SOME}",
    "url": f"postgres://admin:{SOME}@db.example/x",
    "url with an @": f"amqp://admin:p@{SOME}@mq.example",
    "url of a token": f"https://{SOME}@git.example/x.git",
}
LEFT = [
    "a bearer of bad news, and bearer certificates",
    "import sk_learn; ask-me-anything-about-this-long-hyphenated-thing",
    "git clone ssh://git@host.example/x.git",
    "see http://localhost:4437/v1/streams?after=now and http://[::1]:80/@me",
    "the token bucket, its key, a secret garden",
    "eyJ and sk- and ghp_ and AKIA",
    "-----BEGIN CERTIFICATE-----",
    "mask-aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]


@pytest.mark.parametrize("kind", FOUND)
@pytest.mark.parametrize("around", ["{}", "before {} after", '"{}",', "key={}\n", "\u00e9 {}\u2028"])
def test_a_credential_is_found_wherever_it_stands(kind: str, around: str) -> None:
    secret = FOUND[kind]
    rules: list[str] = []
    left = hide(around.format(secret), CREDENTIALS, lambda rule, _count: rules.append(rule))
    assert "[hidden]" in left
    assert SOME[:12] not in left
    assert "A1B2" not in left
    assert rules
    assert hide(left, CREDENTIALS) == left


@pytest.mark.parametrize("text", LEFT)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert hide(text, CREDENTIALS) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("password=hunter2 user=bob", "password=[hidden] user=bob"),
        ('db_passwd: "two words", x', "db_passwd: [hidden], x"),
        ("API_KEY = abc;", "API_KEY = [hidden];"),
        ('{"client_secret":"x","a":1}', '{"client_secret":[hidden],"a":1}'),
        ("passwords are hard", "passwords are hard"),
        ("the secret is out: run", "the secret is out: run"),
    ],
)
def test_values_with_a_telling_name_are_found_where_that_is_asked_for(text: str, left: str) -> None:
    assert hide(text, PAIRS) == left
    assert hide(text, CREDENTIALS) == text


@pytest.mark.parametrize(
    "line",
    [
        "GET /v1/messages/a?token=planted0 HTTP/1.1",
        "> Cookie: session=planted0",
        "> Sec-WebSocket-Protocol: unbroken.v1, ticket.planted0",
        "offered ('unbroken.v1', 'ticket.planted0')",
        "connect to https://chat.example/a?x=1&y=planted0",
    ],
)
def test_a_line_of_the_log_says_nothing_of_queries_cookies_and_tickets(line: str) -> None:
    assert "planted0" not in hide(line, LOGGED)
