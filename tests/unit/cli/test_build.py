"""``offchainvm build`` without a build: where its files are to go."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_builder import EMPTY_OUTPUT_MODULE

from offchainvm.cli import build, main
from offchainvm.compiler.base import BuiltModule

BUILT = BuiltModule(EMPTY_OUTPUT_MODULE, "0" * 64, len(EMPTY_OUTPUT_MODULE), 1.0, "", {"subject": [{"name": "guest.wasm"}]})


def told(output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says where it cannot write there."""
    with pytest.raises(SystemExit) as ended:
        main(["build", "owner/name", "main", "--output", str(output)])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.replace("\u2502", "").split())


def test_a_folder_that_is_not_there_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "run_build", lambda *_, **__: pytest.fail("it was built"))

    assert "cannot be written (it does not exist)" in told(tmp_path / "no" / "x.wasm", capsys)


def test_a_file_that_cannot_be_written_after_all_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "run_build", lambda *_, **__: ("key", BUILT))
    (tmp_path / "x.wasm.provenance.json").mkdir()

    assert "cannot be written (Is a directory)" in told(tmp_path / "x.wasm", capsys)
