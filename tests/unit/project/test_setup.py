"""Which Python the set-up takes, and what it says when none will do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FIND = ROOT / "deploy" / "setup" / "find-python"

SHIM = "#!/bin/sh\necho 'pyenv: python: command not found' >&2\nexit 127\n"
# Answers the probe as an interpreter without ensurepip does, and the question for its version.
NO_ENSUREPIP = '#!/bin/sh\ncase "$*" in *ensurepip*) exit 4;; *) echo 3.11;; esac\n'
OLD = "#!/bin/sh\nexit 3\n"


def fake(folder: Path, name: str, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(text)
    program.chmod(0o755)
    return str(program)


def works(folder: Path, name: str) -> str:
    return fake(folder, name, f'#!/bin/sh\necho "{folder}/{name}"\n')


def find(path: Path, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    path.mkdir(exist_ok=True)
    return subprocess.run(
        ["/bin/sh", str(FIND)], env={"PATH": str(path), "HOME": str(home), **environ}, capture_output=True, text=True, check=False
    )


def test_the_newest_that_works_is_taken(tmp_path: Path) -> None:
    works(tmp_path / "bin", "python3.10")
    newest = works(tmp_path / "bin", "python3.12")
    assert find(tmp_path / "bin", tmp_path).stdout.strip() == newest


def test_a_shim_without_its_version_is_passed_over(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "python3.13", SHIM)
    fallback = works(tmp_path / "bin", "python3.11")
    assert find(tmp_path / "bin", tmp_path).stdout.strip() == fallback


def test_a_version_that_only_pyenv_has_is_found_behind_its_shim(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "python3.13", SHIM)
    works(tmp_path / "bin", "python3.11")
    installed = works(tmp_path / ".pyenv" / "versions" / "3.13.1" / "bin", "python")
    assert find(tmp_path / "bin", tmp_path).stdout.strip() == installed


def test_plain_python3_is_the_last_resort(tmp_path: Path) -> None:
    only = works(tmp_path / "bin", "python3")
    assert find(tmp_path / "bin", tmp_path).stdout.strip() == only


def test_without_ensurepip_the_package_that_brings_it_is_named(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "python3", NO_ENSUREPIP)
    done = find(tmp_path / "bin", tmp_path)
    assert done.returncode == 1
    assert "apt-get install python3.11-venv" in done.stderr


def test_without_any_python_that_will_do_the_remedy_is_named(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "python3", OLD)
    done = find(tmp_path / "bin", tmp_path)
    assert done.returncode == 1
    assert "apt-get install python3 python3-venv" in done.stderr


def test_a_python_named_by_hand_is_taken_or_refused(tmp_path: Path) -> None:
    works(tmp_path / "bin", "python3.13")
    own = works(tmp_path / "own", "python")
    assert find(tmp_path / "bin", tmp_path, PYTHON=own).stdout.strip() == own
    refused = find(tmp_path / "bin", tmp_path, PYTHON=fake(tmp_path / "own", "old", OLD))
    assert refused.returncode == 1
    assert "PYTHON=" in refused.stderr


def test_some_versions_alone_can_be_asked_for(tmp_path: Path) -> None:
    works(tmp_path / "bin", "python3.13")
    works(tmp_path / "bin", "python3")
    older = works(tmp_path / "bin", "python3.11")
    assert find(tmp_path / "bin", tmp_path, VERSIONS="3.11 3.10").stdout.strip() == older
    assert find(tmp_path / "bin", tmp_path, VERSIONS="3.12").returncode == 1


def test_this_interpreter_passes_the_probe(tmp_path: Path) -> None:
    assert find(tmp_path / "bin", tmp_path, PYTHON=sys.executable).returncode == 0


@pytest.mark.parametrize("name", ["find-python", "make-venv"])
def test_scripts_can_be_run(name: str) -> None:
    assert (FIND.parent / name).stat().st_mode & 0o111


def as_unit(tmp_path: Path, user: int, *words: str, **environ: str) -> list[str]:
    """What deploy/setup/offchainvm starts: a word a line, of systemd-run for root and of the program itself for its user."""
    secrets, programs = tmp_path / "etc", tmp_path / "venv"
    text = (ROOT / "deploy" / "setup" / "offchainvm").read_text()
    command = fake(tmp_path, "command", text.replace("/etc/offchainvm", str(secrets)).replace("/opt/offchainvm/.venv/bin", str(programs)))
    fake(tmp_path / "bin", "id", f"#!/bin/sh\necho {user}\n")
    fake(tmp_path / "bin", "getent", "#!/bin/sh\nexit 2\n")
    told = '#!/bin/sh\nfor word in "$@"; do echo "$word"; done\nenv | grep _FILE= || true\n'
    fake(tmp_path / "bin", "systemd-run", told)
    fake(programs, "offchainvm", told)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    done = subprocess.run(
        [command, *words], env={"PATH": path, **environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


def test_a_command_of_root_becomes_a_unit_with_the_user_the_settings_and_the_secrets_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "api_auth_token").write_text("t0ken")
    words = as_unit(tmp_path, 0, "jobs", "show", "a b")
    assert words[-4:] == [str(tmp_path / "command"), "jobs", "show", "a b"]
    assert {"--pipe", "--property=User=offchainvm", f"--property=EnvironmentFile={tmp_path}/etc/env"} <= set(words)
    assert [word for word in words if "LoadCredential" in word] == [
        f"--property=LoadCredential=api_auth_token:{tmp_path}/etc/api_auth_token"
    ]
    assert "t0ken" not in str(words)


def test_within_its_unit_the_command_finds_each_secret_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "operator_private_key").write_text("k")
    words = as_unit(tmp_path, 10001, "doctor", "--json", IN_ITS_UNIT="yes", CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"))
    assert words == ["doctor", "--json", f"OPERATOR_PRIVATE_KEY_FILE={tmp_path}/credentials/operator_private_key"]


def test_where_no_secret_is_the_command_runs_without(tmp_path: Path) -> None:
    assert as_unit(tmp_path, 10001, "workers", IN_ITS_UNIT="yes") == ["workers"]


def test_a_command_of_somebody_else_is_refused(tmp_path: Path) -> None:
    [told] = as_unit(tmp_path, 1000, "workers")
    assert told.startswith("Run this as root")
