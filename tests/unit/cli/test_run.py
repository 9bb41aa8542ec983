"""Limits on the command line are read with their units; every status has its exit code."""

from __future__ import annotations

import io
import json

import pytest
import typer
from rich.console import Console

from offchainvm.cli import main
from offchainvm.cli.report import execution_table
from offchainvm.cli.run import EXIT_CODES, _input, _readable, as_dict
from offchainvm.cli.units import parse_bytes, parse_count, parse_seconds
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
    result = ExecutionResult(limits=Limits(instructions=1, memory_bytes=1, wall_seconds=1), stdout=b"\xff\x00")
    shown = json.loads(json.dumps(as_dict(result)))
    assert (shown["status"], shown["stdout_base64"]) == ("ok", "/wA=")


def test_a_guests_text_cannot_steer_the_terminal():
    assert _readable(b"a\x1b[2Jb\n\tc") == "a\N{REPLACEMENT CHARACTER}[2Jb\n\tc"
    assert _readable(b"\xff\x00") == "ff 00"


def test_input_is_a_text_or_a_file(tmp_path):
    (tmp_path / "input").write_bytes(b"\xff")
    assert (_input("1 2"), _input(f"@{tmp_path / 'input'}"), _input("")) == (b"1 2", b"\xff", b"")
    with pytest.raises(typer.BadParameter, match="no-such-file cannot be read"):
        _input("@no-such-file")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--max-memory", "64 parsecs"), "is not a size such as 64MiB"),
        (("--env", "novalue"), "is not NAME=VALUE"),
        (("--engine", "wasm3"), "wasmer"),
        (("--engine", "wasmer"), "WASMER_PYTHON: /no/such/python"),
        (("--input", "@no-such-file"), "cannot be read"),
    ],
)
def test_a_wrong_call_is_told_and_is_2(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.setenv("WASMER_PYTHON", "/no/such/python")
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "module.wasm").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path / "module.wasm"), *arguments])
    assert ended.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_the_table_shows_each_use_against_its_limit_and_a_strangers_words_as_text():
    limits = Limits(instructions=10**6, memory_bytes=1 << 20, wall_seconds=2)
    result = ExecutionResult(
        Status.TRAP, "[red]no\x1b", limits=limits, trap="unreachable", instructions_used=1234, peak_memory_bytes=65536, engine="wasmer",
        engine_version="1.1.0", meter_version="injected-3+host-1", instructions_exact=False,
    )  # fmt: skip
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(execution_table(result))
    shown = console.export_text()
    for told in ("trap: [red]no·", "1,234", "1,000,000", "0.06 MiB", "2,000 ms", "last known count, by injected-3+host-1", "wasmer 1.1.0"):
        assert told in shown
