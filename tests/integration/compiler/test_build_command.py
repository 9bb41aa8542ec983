"""``offchainvm build``: a person's way to one build."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from offchainvm.cli import main
from offchainvm.compiler.source import source_key


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state_dir: Path, mirror: Path, owner: str) -> Callable[..., int]:
    """Run the command in an empty folder, with the settings of this test; its exit code."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, value in {"STATE_DIR": str(state_dir), "SOURCE_MIRROR_URL": f"file://{mirror}", "WORKER_ID": owner}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["build", *arguments])
        return int(ended.value.code or 0)

    return run


def test_it_writes_the_module_and_its_provenance(
    command: Callable[..., int], publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    commit_sha = publish()

    assert command("someone/guest", "main", "--target", "wasm32-unknown-unknown") == 0

    shown = capsys.readouterr().out
    assert source_key("someone/guest", commit_sha, "wasm32-unknown-unknown") in shown
    assert "Compiling guest" in shown
    provenance = json.loads(Path("guest.wasm.provenance.json").read_text())
    assert provenance["predicate"]["buildDefinition"]["externalParameters"]["commit"] == commit_sha
    assert Path("guest.wasm").read_bytes()[:4] == b"\0asm"


def test_a_failure_shows_its_code_and_the_end_of_the_log(
    command: Callable[..., int], publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    publish({"src/lib.rs": 'pub fn execute() -> i32 { "no" }'})

    assert command("someone/guest", "main", "--target", "wasm32-unknown-unknown", "--quiet") == 1

    out, shown = capsys.readouterr()
    assert "compile_error: " in shown
    assert "mismatched types" in shown
    kept = re.search(r"The log is kept in (\S+)", out)
    assert kept
    text = Path(kept[1]).read_text()
    assert "mismatched types" in text.split("--- how it ended ---")[0]
    assert "The program does not compile" in text.split("--- how it ended ---")[1]


def test_a_name_that_is_none_never_reaches_the_engine(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("ext::sh", "main") == 1
    assert "unsupported_source" in capsys.readouterr().err
    assert command("ext::sh", "main", "--json") == 1
    assert json.loads(capsys.readouterr().out)["code"] == "unsupported_source"
