"""``offchainvm verify``: the rebuild from a provenance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from offchainvm.cli import main

Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state_dir: Path, mirror: Path, owner: str) -> Command:
    """Run the program in an empty folder, with the settings of this test; its exit code."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, value in {"STATE_DIR": str(state_dir), "SOURCE_MIRROR_URL": f"file://{mirror}", "WORKER_ID": owner}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return int(ended.value.code or 0)

    return run


def test_a_module_is_built_again_with_the_lock_file_of_its_provenance(
    command: Command, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    publish(without=("Cargo.lock",))
    assert command("build", "someone/guest", "main", "--target", "wasm32-unknown-unknown", "--json") == 0
    built = json.loads(capsys.readouterr().out)
    assert "Compiling guest" in Path(built["log"]).read_text()
    kept = Path(built["log"]).with_suffix(".provenance.json")
    assert kept.read_text() == Path("guest.wasm.provenance.json").read_text()

    assert command("verify", "guest.wasm", "--log") == 0

    shown = capsys.readouterr().out
    assert "the one that an earlier build made is used" in shown
    assert shown.count(built["sha256"]) >= 3
    assert "The source gives the same bytes. The repository has no Cargo.lock: the one that the provenance holds was used." in shown

    # Bytes that nobody built, with a provenance that says so.
    Path("guest.wasm").write_bytes(b"\0asm\1\0\0\0")
    assert command("verify", "guest.wasm") == 1
    assert "not the one of its provenance" in capsys.readouterr().out
    statement = json.loads(kept.read_text())
    statement["subject"][0]["digest"]["sha256"] = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476"
    statement["predicate"]["runDetails"]["builder"]["version"]["toolchain"] = "rustc 1.0.0"
    Path("guest.wasm.provenance.json").write_text(json.dumps(statement))
    assert command("verify", "guest.wasm", "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["verdict"], result["rebuilt"], result["differs_in"]) == ("different", built["sha256"], ["toolchain"])


def test_what_cannot_be_built_again_is_told_apart(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    examples = Path(__file__).parents[3] / "examples" / "prebuilt"

    assert command("verify", str(examples / "word-count.wasm")) == 3
    assert "repo_not_found" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"predicate": {"buildDefinition": {"buildType": "another"}}}'])
def test_what_is_no_provenance_is_a_mistake_of_use(command: Command, capsys: pytest.CaptureFixture[str], text: str) -> None:
    Path("guest.wasm").write_bytes(b"")
    if text:
        Path("guest.wasm.provenance.json").write_text(text)

    assert command("verify", "guest.wasm") == 2
    assert "provenance" in capsys.readouterr().err
