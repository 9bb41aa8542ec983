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
