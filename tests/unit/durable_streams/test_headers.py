"""The request headers of the Durable Streams face: what is taken, and what is refused with its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import InvalidError
from unbroken.server.durable_streams.headers import (
    ForkRequest,
    append_request,
    create_request,
    expiry_text,
    matches_etag,
    media_type,
)
from unbroken.store.base import Producer

PRODUCER = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
NOT_NUMBERS = ["", " 1", "1 ", "1\n", "+1", "-1", "01", "1.0", "1e3", "abc", "0x1", "1_0", "\u0661", "1" * 17]


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_a_time_to_live_is_a_plain_decimal_number(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        create_request({"stream-ttl": text})
    assert caught.value.detail["field"] == "Stream-TTL"


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("1", 1), ("3600", 3600)])
def test_a_time_to_live_is_read(text: str, seconds: int) -> None:
    assert create_request({"stream-ttl": text}).ttl_seconds == seconds


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_a_sub_offset_is_a_plain_decimal_number(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        create_request({"stream-forked-from": "/v1/stream/a", "stream-fork-sub-offset": text})
    assert caught.value.detail["field"] == "Stream-Fork-Sub-Offset"


@pytest.mark.parametrize("name", ["stream-fork-offset", "stream-fork-sub-offset"])
def test_a_place_to_fork_at_needs_a_source_even_when_it_is_zero(name: str) -> None:
    with pytest.raises(InvalidError):
        create_request({name: "0"})


def test_a_fork_is_read() -> None:
    headers = {"stream-forked-from": "/v1/stream/a", "stream-fork-offset": "x", "stream-fork-sub-offset": "3"}
    assert create_request(headers).fork == ForkRequest("/v1/stream/a", "x", 3)
    assert create_request({"stream-forked-from": "/v1/stream/a"}).fork == ForkRequest("/v1/stream/a", None, 0)


def test_both_kinds_of_expiry_exclude_each_other() -> None:
    with pytest.raises(InvalidError):
        create_request({"stream-ttl": "1", "stream-expires-at": "2030-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01t00:00:01z", 1_000),
        ("1970-01-01T00:00:01.5Z", 1_500),
        ("1970-01-01T00:00:01.123456789Z", 1_123),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1969-12-31T23:00:01-01:00", 1_000),
    ],
)
def test_an_expiry_is_read_to_the_millisecond(text: str, milliseconds: int) -> None:
    assert create_request({"stream-expires-at": text}).expires_ms == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not-a-timestamp",
        "2030-01-01",
        "2030-01-01T00:00:00",
        "2030-01-01T00:00:00Z\n",
        " 2030-01-01T00:00:00Z",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2030-01-01T25:00:00Z",
        "2030-01-01T00:00:00+99:00",
        "2030-01-01T00:00:00,5Z",
        "1969-12-31T00:00:00Z",
        "0001-01-01T00:00:00+10:00",
        "1893456000",
    ],
)
def test_a_bad_expiry_is_refused(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        create_request({"stream-expires-at": text})
    assert caught.value.detail["field"] == "Stream-Expires-At"


@given(st.integers(min_value=0, max_value=253_402_300_799_999))
def test_an_expiry_reads_back_as_itself(milliseconds: int) -> None:
    assert create_request({"stream-expires-at": expiry_text(milliseconds)}).expires_ms == milliseconds


@pytest.mark.parametrize(
    ("text", "closed"), [("true", True), ("TRUE", True), ("1", False), ("yes", False), ("", False)]
)
def test_only_true_closes(text: str, *, closed: bool) -> None:
    assert append_request({"stream-closed": text}).closed is closed
    assert create_request({"stream-closed": text}).closed is closed


def test_a_producer_is_read() -> None:
    assert append_request({**PRODUCER, "producer-epoch": "3", "producer-seq": str(2**53 - 1)}).producer == Producer(
        "p", 3, 2**53 - 1
    )
    assert append_request({}).producer is None


@pytest.mark.parametrize("missing", sorted(PRODUCER))
def test_a_producer_names_all_three_or_none(missing: str) -> None:
    with pytest.raises(InvalidError):
        append_request({name: text for name, text in PRODUCER.items() if name != missing})


@pytest.mark.parametrize("name", ["producer-epoch", "producer-seq"])
@pytest.mark.parametrize("text", ["", "-1", "+1", "1abc", "1.5", " 1", "1\n", "\u0661", str(2**53), "1" * 17])
def test_a_producer_number_is_digits_below_two_to_the_53(name: str, text: str) -> None:
    with pytest.raises(InvalidError):
        append_request({**PRODUCER, name: text})


def test_an_empty_producer_id_is_refused() -> None:
    with pytest.raises(InvalidError):
        append_request({**PRODUCER, "producer-id": ""})


@pytest.mark.parametrize(
    ("text", "media"),
    [("application/json", "application/json"), ("Application/JSON; charset=utf-8", "application/json"), ("x", "x")],
)
def test_content_types_are_compared_without_parameters(text: str, media: str) -> None:
    assert media_type(text) == media


@pytest.mark.parametrize(
    ("given", "matches"),
    [(None, False), ('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False)],
)
def test_an_entity_tag_is_compared_weakly(given: str | None, *, matches: bool) -> None:
    assert matches_etag(given, '"a"') is matches
