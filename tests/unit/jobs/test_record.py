"""Records and values of the jobs room, without a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import offchainvm.jobs
from offchainvm.jobs.record import (
    DEADLINE_HEIGHTS,
    SCHEMA_VERSION,
    Claim,
    Stage,
    State,
    UnreadableRecord,
    fixed_text,
    parse_job,
    parse_report,
    parse_response,
    report_text,
    response_text,
)
from offchainvm.jobs.rows import Row, Transaction, journal_body, parse_journal_body
from offchainvm.jobs.server import flat, plain
from offchainvm.models import CodeSource, ExecutionReport, ExecutionResponse, ResourceLimits, ResourcesUsed

DATA_ID = "ab" * 32
LIMITS = ResourceLimits(max_instructions=2**64 - 1, max_memory_mb=128, max_execution_seconds=60)


def fields(**changes: str) -> dict[str, str]:
    source = CodeSource(repo="https://github.com/near/x", commit="main")
    fixed = fixed_text(
        data_id=DATA_ID, request_id=2**63 - 1, source=source, limits=LIMITS, limits_clamped=("max_memory_mb",), input_data="å"
    )
    return {"fixed": fixed, "state": "queued", "stage": "compile", "fence": "3", "accepted": "1700000000123", **changes}


def test_a_record_keeps_the_largest_numbers_exactly() -> None:
    job = parse_job(fields())
    assert (job.request_id, job.limits.max_instructions) == (2**63 - 1, 2**64 - 1)
    assert (job.state, job.stage, job.fence, job.input_data) == (State.QUEUED, Stage.COMPILE, 3, "å")
    assert job.limits_clamped == ("max_memory_mb",)
    assert job.accepted_at == 1700000000.123


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    record = fields(colour="blue")
    record["fixed"] = json.dumps({**json.loads(record["fixed"]), "v": SCHEMA_VERSION + 1, "mood": {"good": True}})
    assert parse_job(record).data_id == DATA_ID


def test_a_record_that_needs_a_newer_version_is_refused() -> None:
    with pytest.raises(UnreadableRecord, match="newer version"):
        parse_job(fields(needs=str(SCHEMA_VERSION + 1)))


@pytest.mark.parametrize("broken", [{"state": "dreaming"}, {"fixed": "{}"}, {"fixed": "["}, {"fence": "x"}])
def test_a_record_that_makes_no_sense_is_refused_with_a_remedy(broken: dict[str, str]) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        parse_job(fields(**broken))
    assert caught.value.remedy


def test_fields_that_are_not_there_yet_are_none() -> None:
    job = parse_job(fields(deadline="", event="", source_key="", commit="", module=""))
    assert (job.deadline_height, job.event_height, job.source_key, job.commit_sha, job.module_sha256) == (None,) * 5
    assert (job.response, job.verdict, job.transaction_hash, job.error, job.rebuild) == (None, None, None, None, False)


@pytest.mark.parametrize(("deaths", "poisoned"), [("2", False), ("3", True), ("4", True)])
def test_three_deaths_make_a_claim_poisoned(deaths: str, poisoned: bool) -> None:
    assert Claim(parse_job(fields(deaths=deaths)), fence=3, owner="w", token="t").poisoned is poisoned


def test_bytes_that_are_no_text_survive_in_responses_and_reports() -> None:
    response = ExecutionResponse(success=True, return_value=b"\xff\x00", resources_used=ResourcesUsed(instructions=2**64 - 1))
    report = ExecutionReport(request_id=1, success=True, output=b"\xfe\xff", execution_time_ms=7)
    assert parse_response(response_text(response)) == response
    assert parse_report(report_text(report)) == report
    assert parse_report(report_text(report, with_output=False)).output is None


def test_the_journal_gives_back_what_it_got() -> None:
    rows = [Row(DATA_ID, b'{"a":1}', 5, 1, "take", '{"request_id":1}'), Row("cd" * 32, b"\xff", None, 0, "take")]
    tx = Transaction("h", "ed25519:k", 2**63, 4, b"\x00\xff", (DATA_ID, "cd" * 32), 2, 1.5)
    assert parse_journal_body(journal_body(tx, rows)) == (tx, rows)


def test_a_journal_entry_of_a_newer_version_is_read() -> None:
    tx = Transaction("h", "k", 1, 2, b"s", (DATA_ID,))
    values = json.loads(journal_body(tx, [Row(DATA_ID, b"a", None, 0, "t")]))
    values["transaction"]["colour"] = values["rows"][0]["colour"] = "blue"
    assert parse_journal_body(json.dumps(values).encode())[0] == tx


def test_texts_for_redis_have_no_lone_surrogates() -> None:
    assert plain("a\ud800b", limit=2) == "a?"
    assert flat(["a", "1", "b", "2"]) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("script", sorted((Path(offchainvm.jobs.__file__).parent / "lua").glob("*.lua")), ids=lambda path: path.stem)
def test_every_script_says_what_it_takes_and_whether_a_repeat_is_safe(script: Path) -> None:
    head = script.read_text().split("\nlocal", 1)[0]
    assert head.startswith("-- ")
    reads_only = script.stem in {"common", "list", "flights", "overview"}
    assert reads_only or "token" in head


@pytest.mark.parametrize("library", ["builds", "rows"])
def test_every_script_names_the_libraries_it_uses(library: str) -> None:
    folder = Path(offchainvm.jobs.__file__).parent / "lua"
    own = re.findall(r"^local (?:function )?(\w+)", (folder / f"{library}.lua").read_text(), re.MULTILINE)
    for script in folder.glob("*.lua"):
        if script.stem not in {"common", "builds", "rows"}:
            code = re.sub(r"--.*|'[^'\n]*'", "", script.read_text())
            needs = re.findall(r"^-- Needs: (.+)$", script.read_text(), re.MULTILINE)
            uses = any(re.search(rf"\b{name}\b", code) for name in own)
            assert uses == (library in " ".join(needs).split()), script.stem


def test_scripts_and_code_agree_on_the_deadline() -> None:
    common = (Path(offchainvm.jobs.__file__).parent / "lua" / "common.lua").read_text()
    assert f"local DEADLINE = {DEADLINE_HEIGHTS}\n" in common
