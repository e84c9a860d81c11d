"""Redaction of messages: every kind of payload, JSON that stays JSON, the operator's rules, the application's own."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import ConfigurationError, InvalidError
from unbroken.messages import NewMessage
from unbroken.redaction.redactor import Redactor, Rules, load_rules

SECRET = "sk-" + "a1B2" * 8
BOTH = Redactor(load_rules(["secrets", "pairs"]))
PAIRS = Redactor(load_rules(["pairs"]))
TELLING = ("password", "secret", "passwd", "api_key")


def _json(text: str, redactor: Redactor = BOTH) -> str:
    cleaned = redactor.message(NewMessage(json=msgspec.Raw(text.encode()))).json
    assert isinstance(cleaned, msgspec.Raw)
    return bytes(cleaned).decode()


def test_text_bytes_and_json_are_searched() -> None:
    for message in (
        NewMessage(text=f"it is {SECRET}, sir"),
        NewMessage(data=f"it is {SECRET}, sir".encode()),
        NewMessage(json=msgspec.Raw(f'{{"a":["it is {SECRET}, sir"]}}'.encode())),
    ):
        cleaned = msgspec.json.encode(BOTH.message(message)).decode()
        assert SECRET not in cleaned
        assert message.data is not msgspec.UNSET or "it is [hidden], sir" in cleaned
    clean = NewMessage(text="nothing to see")
    assert BOTH.message(clean) is clean
    binary = NewMessage(data=b"\xff\x00" + SECRET.encode())
    assert BOTH.message(binary) is binary


def test_json_keeps_everything_else_as_it_was_written() -> None:
    given = f'{{"n": 1.10, "big": 123456789012345678901234567890, "e":1E+2,"u":"\\u00e9", "k":"{SECRET}" }}'
    assert _json(given) == given.replace(SECRET, "[hidden]")


def test_a_secret_is_found_however_json_writes_it() -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in SECRET)
    assert json.loads(_json(f'["{escaped}"]')) == ["[hidden]"]
    key = "-----BEGIN PRIVATE KEY-----\\nplanted0\\n-----END PRIVATE KEY-----"
    assert json.loads(_json(f'{{"k":"{key}"}}')) == {"k": "[hidden]"}
    assert json.loads(_json(f'{{"{SECRET}":1}}')) == {"[hidden]": 1}


def test_the_value_of_a_telling_name_is_hidden() -> None:
    given = (
        '{"password" : "hunter2", "user":"bob", "secret": 123456, "api_key":["x"], "token": "", "a": {"passwd":"y"}}'
    )
    assert json.loads(_json(given)) == {
        "password": "[hidden]",
        "user": "bob",
        "secret": "[hidden]",
        "api_key": ["[hidden]"],
        "token": "",
        "a": {"passwd": "[hidden]"},
    }


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ('{"password": {"value": "x"}, "user": "bob"}', '{"password": {"value": "[hidden]"}, "user": "bob"}'),
        ('{"password":["x",-1.5e+3,7],"n":5}', '{"password":["[hidden]","[hidden]","[hidden]"],"n":5}'),
        ('[{"secret": [[1], {"a": [2, {"b": "x"}]}, 3]}, 4, "y"]', None),
        ('{"a": {"secret": {"passwd": {"b": 1}, "c": 2}, "d": 3}, "e": "f"}', None),
        ('{"password": [true, null, "", {}, []], "a": [1]}', '{"password": [true, null, "", {}, []], "a": [1]}'),
        ('{"password": "]}[{", "a": "b", "secret": ["]", "x"], "c": 1}', None),
        ('{"secret": {"]": 1, "x\\"}": "y"}, "a": 2}', None),
    ],
)
def test_everything_below_a_telling_name_is_hidden(given: str, left: str | None) -> None:
    cleaned = _json(given, PAIRS)
    assert json.loads(cleaned) == _without_pairs(json.loads(given))
    assert left is None or cleaned == left, "and what is around it stays as it was written"


def _without_pairs(value: object, *, hidden: bool = False) -> object:
    """What is to be left, by another way than the redactor's."""
    if isinstance(value, dict):
        return {name: _without_pairs(item, hidden=hidden or name in TELLING) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_pairs(item, hidden=hidden) for item in value]
    secret = hidden and value != "" and value is not None and not isinstance(value, bool)
    return "[hidden]" if secret else value


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidError):
        _json('{"password": "\\x"}')
    with pytest.raises(InvalidError):
        BOTH.message(NewMessage(json=msgspec.Raw(b'"\xff"')))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([SECRET, "password", f'"{SECRET}\\']),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["password", SECRET]), inner),
)


@given(JSON, st.booleans())
def test_json_stays_json_without_the_secret(value: object, ascii_only: bool) -> None:
    try:
        text = json.dumps(value, ensure_ascii=ascii_only)
        text.encode()
    except UnicodeEncodeError:
        return
    cleaned = _json(text)
    json.loads(cleaned)
    assert SECRET not in cleaned
    assert _json(cleaned) == cleaned
    if "password" not in text and SECRET[:8] not in text:
        assert cleaned == text


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab]}[{",: \\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('ab]}[{",: \\') | st.sampled_from(TELLING), inner),
)


@given(PLAIN)
def test_everything_below_a_telling_name_is_hidden_and_nothing_else(value: object) -> None:
    assert json.loads(_json(json.dumps(value), PAIRS)) == _without_pairs(value)


def test_a_file_has_literals_and_patterns_of_the_operators_own(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'literals = ["open sesame", "44112233"]\n[patterns]\ncustomer = \'^CUST-\\d{4}\'\n', encoding="utf-8"
    )
    redactor = Redactor(load_rules([str(rules)]))
    counted: dict[str, int] = {}
    redactor.found = lambda rule, count: counted.update({rule: counted.get(rule, 0) + count})
    assert redactor.text("say open sesame, open+sesame, b3BlbiBzZXNhbWU=") == "say [hidden], [hidden], AAAAAAAAAAAAAAU="
    assert json.loads(_json('{"a":"CUST-1234","b":44112233,"c":144112233, "d":4.4112233}', redactor)) == {
        "a": "[hidden]",
        "b": "[hidden]",
        "c": 144112233,
        "d": 4.4112233,
    }
    assert counted == {"literal": 2, "customer": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("literals = ['abc']", "at least six"),
        ("patterns = {a = '('}", "no regular expression"),
        ("patterns = {a = 'x*'}", "matches what is empty"),
        ("literal = ['abcdefg']", "unknown field"),
        ("literals = 3", "array"),
        ("=", "Invalid"),
        (None, "cannot be read"),
    ],
)
def test_rules_that_cannot_be_used_are_refused_by_name(tmp_path: Path, content: str | None, says: str) -> None:
    rules = tmp_path / "rules.toml"
    if content is not None:
        rules.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=says) as caught:
        load_rules(["secrets", str(rules)])
    assert caught.value.detail["setting"] == "redact"


def test_the_hook_of_an_application_sees_what_the_rules_left_and_has_the_last_word() -> None:
    seen: list[NewMessage] = []

    def hook(message: NewMessage) -> NewMessage:
        seen.append(message)
        if message.text == "poison":
            raise InvalidError("not here")
        return msgspec.structs.replace(message, text="no more")

    redactor = Redactor(load_rules(["secrets"]), hook=hook)
    assert redactor.message(NewMessage(text=SECRET)).text == "no more"
    assert seen[0].text == "[hidden]"
    with pytest.raises(InvalidError):
        Redactor(Rules(), hook=hook).message(NewMessage(text="poison"))
