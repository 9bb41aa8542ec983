"""The program as a whole: its commands, and how their failures look."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from offchainvm import __version__, cli
from offchainvm.errors import OffchainVMError, SettingsError

Run = Callable[..., tuple[int, str, str]]


def test_help_names_every_command_and_imports_none_of_their_rooms() -> None:
    code = (
        "import sys\nfrom offchainvm import cli\ntry: cli.main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'celery', 'docker', 'redis', 'near_api', 'wasmtime', 'requests', 'structlog'} & set(sys.modules)\nassert not heavy, heavy"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert [name for name in cli.COMMANDS if f" {name} " not in shown.stdout] == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_is_there_and_says_what_the_list_says(name: str) -> None:
    command = getattr(importlib.import_module(f"offchainvm.cli.{name}"), name)
    function = command.registered_callback.callback if isinstance(command, typer.Typer) else command
    assert (inspect.getdoc(function) or "").splitlines()[0] == cli.COMMANDS[name]


def test_a_room_that_cannot_be_imported_takes_no_other_command_with_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "offchainvm.cli.build", None)  # importing it raises ImportError
    assert run("jobs", "--help")[0] == 0
    assert run("--help")[0] == 0
    with pytest.raises(ImportError):
        cli.main(["build", "--help"])


def test_version(run: Run) -> None:
    assert run("--version")[:2] == (0, f"{__version__}\n")


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    code, _, err = run("dance")
    assert code == 2
    assert "dance" in err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            SettingsError(["API_BASE_URL: is missing.", "LOG_LEVEL: is wrong."]),
            2,
            "  - API_BASE_URL: is missing.\n  - LOG_LEVEL: is wrong.",
        ),
        (OffchainVMError("It is broken.", remedy="Mend it."), 1, "It is broken.\nMend it.\n"),
    ],
)
def test_an_error_of_ours_is_a_sentence_and_a_remedy_without_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: OffchainVMError, code: int, text: str
) -> None:
    def fail(_name: str) -> Callable[[], None]:
        def command() -> None:
            raise error

        return command

    monkeypatch.setattr(cli, "_load", fail)
    ended, _, err = run("doctor")
    assert ended == code
    assert text in err
    assert "Traceback" not in err
