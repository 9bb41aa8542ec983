"""Limits on the command line are read with their units; every status has its exit code."""

from __future__ import annotations

import json

import pytest
import typer

from offchainvm.cli.run import EXIT_CODES, _readable, as_dict, parse_bytes, parse_count, parse_seconds
from offchainvm.engine.base import ExecutionResult, Limits
from offchainvm.errors import Status


@pytest.mark.parametrize(("text", "value"), [("1e9", 10**9), ("1.5e3", 1500), ("10_000", 10_000), ("0", 0), ("1E+2", 100)])
def test_counts(text, value):
    assert parse_count(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1.25e1", "ten", "1e", "1e999"])
def test_what_is_no_count(text):
    with pytest.raises(typer.BadParameter):
        parse_count(text)


@pytest.mark.parametrize(("text", "value"), [("64MiB", 64 << 20), ("1GB", 10**9), ("65536", 65536), ("1.5e3 KiB", 1500 << 10)])
def test_sizes(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [("2s", 2.0), ("500ms", 0.5), ("1m", 60.0), ("0.5", 0.5)])
def test_times(text, value):
    assert parse_seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("parse", "text"), [(parse_bytes, "64 parsecs"), (parse_bytes, "MiB"), (parse_seconds, "0"), (parse_seconds, "2 years")]
)
def test_what_is_no_size_or_time(parse, text):
    with pytest.raises(typer.BadParameter):
        parse(text)


def test_every_status_has_an_exit_code_and_only_ok_is_zero():
    assert set(EXIT_CODES) == set(Status)
    assert [status for status, code in EXIT_CODES.items() if code == 0] == [Status.OK]


def test_the_json_holds_every_byte():
    result = ExecutionResult(Status.OK, Limits(instructions=1, memory_bytes=1, wall_seconds=1), stdout=b"\xff\x00")
    shown = json.loads(json.dumps(as_dict(result)))
    assert (shown["status"], shown["stdout_base64"]) == ("ok", "/wA=")


def test_a_guests_text_cannot_steer_the_terminal():
    assert _readable(b"a\x1b[2Jb\n\tc") == "a\N{REPLACEMENT CHARACTER}[2Jb\n\tc"
    assert _readable(b"\xff\x00") == "ff 00"
