"""The audit log: what an entry says, where it goes, and that strangers cannot make it grow."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.parts import ManualClock
from unbroken.errors import ConfigurationError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.observe import audit_events
from unbroken.observe.audit import Audit
from unbroken.observe.audit_events import AuditEvent, Deed, Erased, Refused, TokenMade

ALICE = Principal("acme", "alice", actor="helper", credential="token 7f3a")
HASTY = replace(DEFAULT_LIMITS, audit_sync_seconds=0.001, audit_interval_seconds=0.01)


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _audit(path: Path) -> Audit:
    audit = Audit(ManualClock(), DEFAULT_LIMITS)
    audit.write_to(path)
    return audit


def test_an_entry_says_who_did_what_and_with_which_credential(tmp_path: Path) -> None:
    audit = _audit(tmp_path / "audit.jsonl")
    audit.record(
        Deed(verb="cancel", action="cancel", outcome="done", owner="alice", stream="chat/1", epoch=3, by=ALICE)
    )
    (entry,) = _lines(tmp_path / "audit.jsonl")
    assert str(entry.pop("time")).endswith("+00:00")
    assert entry == {
        "event": "deed",
        "verb": "cancel",
        "action": "cancel",
        "outcome": "done",
        "owner": "alice",
        "stream": "chat/1",
        "epoch": 3,
        "by": "helper",
        "by_subject": "alice",
        "by_tenant": "acme",
        "with": "token 7f3a",
    }
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_every_event_can_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    audit = Audit(ManualClock(), DEFAULT_LIMITS)
    audit.record(
        TokenMade(credential="t1", label="phone", tenant="acme", owner="alice", grants=("read chat/*",), by=ALICE)
    )
    (record,) = caplog.records
    assert (record.name, record.message) == ("unbroken.audit", "token_made")
    assert (vars(record)["credential"], vars(record)["by"]) == ("t1", "helper")
    kinds = [getattr(audit_events, name) for name in audit_events.__all__]
    names = [kind.event for kind in kinds if kind is not AuditEvent]
    assert "" not in names
    assert len(set(names)) == len(names)


def test_repeated_refusals_are_a_line_and_a_number(tmp_path: Path) -> None:
    audit = _audit(tmp_path / "audit.jsonl")
    for _ in range(1_000):
        audit.record(Refused(reason="expired", face="http", client="192.0.2.1"))
    audit.record(Refused(reason="expired", face="http", client="192.0.2.2"))
    assert len(_lines(tmp_path / "audit.jsonl")) == 2
    audit.close()
    told = _lines(tmp_path / "audit.jsonl")[2:]
    assert [(entry["client"], entry["more"]) for entry in told] == [("192.0.2.1", 999)]


def test_a_stranger_with_many_addresses_fills_neither_memory_nor_disk(tmp_path: Path) -> None:
    audit = _audit(tmp_path / "audit.jsonl")
    most = DEFAULT_LIMITS.audit_kinds_max
    for number in range(10 * most):
        audit.record(Refused(reason="missing", client=f"2001:db8::{number:x}"))
    audit.close()
    entries = _lines(tmp_path / "audit.jsonl")
    assert len(entries) == most + 2
    assert entries[-1]["various"] is True
    assert entries[-1]["more"] == 9 * most - 1


def test_a_file_that_was_moved_away_or_truncated_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = _audit(path)
    for number in range(4):
        audit.record(Deed(verb=f"v{number}", stream="s", by=ALICE))
        if number == 1:
            path.rename(tmp_path / "audit.1")
        if number == 2:
            path.write_bytes(b"")
    assert [entry["verb"] for entry in _lines(tmp_path / "audit.1")] == ["v0", "v1"]
    assert [entry["verb"] for entry in _lines(path)] == ["v3"]


def test_texts_are_bounded_and_stay_in_their_line(tmp_path: Path) -> None:
    audit = _audit(tmp_path / "audit.jsonl")
    audit.record(Deed(verb="delete", stream="a\n{}\u2028" + "x" * 10_000, by=ALICE))
    (entry,) = _lines(tmp_path / "audit.jsonl")
    assert len(str(entry["stream"])) == DEFAULT_LIMITS.audit_text_characters_max


def test_what_looks_like_a_secret_is_left_out_of_every_text(tmp_path: Path) -> None:
    audit = _audit(tmp_path / "audit.jsonl")
    secret = "sk-" + "a1B2" * 8
    grants = (f"read {secret}", "read chat/*")
    by = Principal(f"acme {secret}", f"alice {secret}", actor=f"helper {secret}", credential=f"jwt:{secret}")
    audit.record(
        TokenMade(credential="token:7f", label=f"key {secret}", tenant="t", owner=secret, grants=grants, by=by)
    )
    audit.record(Erased(tenant="acme", owner="alice", streams=1, reason=f"{secret} leaked, password=hunter22", by=by))
    audit.record(Deed(verb="manage", stream="x" * 500 + secret, by=by))
    assert secret[:20] not in (tmp_path / "audit.jsonl").read_text(encoding="utf-8")
    made, erased, _ = _lines(tmp_path / "audit.jsonl")
    assert (made["credential"], made["label"], made["grants"]) == (
        "token:7f",
        "key [hidden]",
        ["read [hidden]", "read chat/*"],
    )
    assert (made["by"], made["with"]) == ("helper [hidden]", "jwt:[hidden]")
    assert erased["reason"] == "[hidden] leaked, password=[hidden]"


def test_a_file_that_cannot_be_written_is_told_at_the_start_and_later_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="audit file"):
        _audit(tmp_path / "missing" / "audit.jsonl")
    (tmp_path / "there").mkdir()
    audit = _audit(tmp_path / "there" / "audit.jsonl")
    (tmp_path / "there" / "audit.jsonl").unlink()
    (tmp_path / "there").rmdir()
    for _ in range(2):
        audit.record(Deed(verb="delete", stream="s", by=ALICE))
    assert audit.failing
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


@pytest.mark.anyio
async def test_the_numbers_are_told_while_the_server_runs(tmp_path: Path) -> None:
    audit = Audit(ManualClock(), HASTY)
    audit.write_to(tmp_path / "audit.jsonl")
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(audit.run())
        for _ in range(3):
            audit.record(Refused(reason="origin"))
        while len(_lines(tmp_path / "audit.jsonl")) < 2:
            await asyncio.to_thread(lambda: None)
        running.cancel()
    assert _lines(tmp_path / "audit.jsonl")[1]["more"] == 2
